"""One vocabulary for the schedule: scripts of requests and answers in virtual time."""

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

from amplitude_async.config import DeliveryConfig
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.deciding.schedule import Schedule
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Broken,
    Busy,
    Halve,
    Refuse,
    Sort,
    Verdict,
)
from amplitude_async.delivery.outcome import DeliveryStatus, DropReason, Outcome
from amplitude_async.storage.base import Record

__all__ = [
    "EPOCH",
    "FAILED",
    "GONE",
    "OK",
    "REFUSED",
    "SLOW",
    "TOO_LARGE",
    "UNAVAILABLE",
    "UNNAMED",
    "Book",
    "Longest",
    "always",
    "health",
    "many",
    "naming",
    "quiet",
    "sent",
    "series",
    "unless",
]

EPOCH = 1_000_000.0
OK = Accept(200, "delivered")
FAILED = Broken(500, "HTTP 500")
UNAVAILABLE = Busy(503, "HTTP 503")
GONE = Busy(0, "ClientConnectorError: refused")
SLOW = Busy(429, "HTTP 429", throttled=True)
TOO_LARGE = Halve(413, "HTTP 413")
UNNAMED = Bisect(400, "HTTP 400")
REFUSED = Refuse(401, "HTTP 401")

Server = Callable[[list[str]], Verdict]


class Longest(random.Random):
    """Draws the longest wait, so that a test can say when it ends."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper bound."""
        return max(a, b)


class Book:
    """A schedule whose account is checked after every step.

    Events are named after their identity: "a1 a2 b1" are two of "a" and one of "b".
    """

    def __init__(
        self,
        *,
        max_bytes: int = 10**6,
        max_age: float = 86_400.0,
        durable: bool = False,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        self.config = DeliveryConfig(**options)
        rng = Longest() if seed is None else random.Random(seed)
        self.schedule = Schedule(
            self.config,
            max_events=2_000,
            max_bytes=max_bytes,
            max_age=max_age,
            durable=durable,
            rng=rng,
        )
        self.now = 100.0
        self.added = 0
        self.checks = True
        self.requests: list[list[str]] = []
        self.settled: dict[str, Outcome] = {}

    @property
    def wall(self) -> float:
        """The wall clock, which runs with the other one."""
        return EPOCH + self.now

    def add(self, names: str, size: int = 10) -> None:
        """Accept events now."""
        records = []
        for name in names.split():
            self.added += 1
            identity = name.rstrip("0123456789")
            body = b"x" * size
            records.append(
                Record(self.added, body, identity, identity, None, name, self.wall)
            )
        self.schedule.add(records, self.now)
        self.check()

    def next(self, *, slots: int = 4, eager: bool = False) -> Group | None:
        """Take the next request; where none may go, the schedule must not spin."""
        group = self.schedule.next(self.now, self.wall, slots=slots, eager=eager)
        self.write_down(self.schedule.collect())
        if group is not None:
            self.requests.append(sent(group))
        elif slots > 0:
            due = self.schedule.next_request_at(self.now, eager=eager)
            assert due is None or due > self.now, "it would be asked again at once"
        self.check()
        return group

    def take(self, *, slots: int = 4, eager: bool = True) -> Group:
        """Take the next request, which must be there."""
        group = self.next(slots=slots, eager=eager)
        assert group is not None
        return group

    def answer(self, group: Group, verdict: Verdict) -> None:
        """Bring the server's answer."""
        self.write_down(self.schedule.apply(group, verdict, self.now))
        self.write_down(self.schedule.collect())
        self.check()

    def write_down(self, settlements: Iterable[tuple[Record, Outcome]]) -> None:
        """Note outcomes, of which each event has one."""
        for record, outcome in settlements:
            assert record.insert_id not in self.settled
            self.settled[record.insert_id] = outcome

    def check(self) -> None:
        """Hold the account against the schedule's own."""
        if not self.checks:
            return
        schedule = self.schedule
        assert schedule.size == self.added - len(self.settled)
        assert 0 <= schedule.held <= schedule.size
        assert schedule.in_flight >= 0

    def run(self, server: Server, *, slots: int = 4, most: int = 5_000) -> int:
        """Let a server answer at once until all is decided; returns the requests."""
        begun = len(self.requests)
        while self.schedule.size:
            group = self.next(slots=slots, eager=True)
            if group is not None:
                self.answer(group, server(sent(group)))
                assert len(self.requests) - begun <= most, "a storm of requests"
                continue
            if not self.schedule.size:
                break  # the last of them expired
            due = self.schedule.next_wake_at(self.now, self.wall, eager=True)
            assert due is not None, "events wait for nothing"
            self.now = max(due, math.nextafter(self.now, math.inf))
        return len(self.requests) - begun

    def run_for(self, seconds: float, server: Server, *, most: int) -> None:
        """Let a server answer at once for so long, in so many requests at the most."""
        end = self.now + seconds
        begun = len(self.requests)
        while True:
            group = self.next(eager=True)
            if group is not None:
                self.answer(group, server(sent(group)))
                assert len(self.requests) - begun <= most, "a storm of requests"
                continue
            due = self.schedule.next_wake_at(self.now, self.wall, eager=True)
            if due is None or due >= end:
                break
            self.now = max(due, math.nextafter(self.now, math.inf))
        self.now = end

    def ends(self, status: DeliveryStatus) -> list[str]:
        """Name the events that came to an end of this kind."""
        return [n for n, o in self.settled.items() if o.status is status]

    def dropped(self, reason: DropReason) -> list[str]:
        """Name the events that were given up for this reason."""
        return [n for n, o in self.settled.items() if o.reason is reason]


def sent(group: Group) -> list[str]:
    """Name the events of the request under way."""
    return [record.insert_id for record in group.pieces[-1]]


def many(count: int, identity: str = "u") -> str:
    """Name so many events, each of an identity of its own."""
    return " ".join(f"{identity}{chr(97 + i % 26)}_{i}x" for i in range(count))


def series(identity: str, count: int, start: int = 1) -> str:
    """Name so many events of one identity."""
    return " ".join(f"{identity}{number}" for number in range(start, start + count))


def always(verdict: Verdict) -> Server:
    """Return a server that knows one answer."""
    return lambda _: verdict


def unless(poison: str, verdict: Verdict) -> Server:
    """Return a server that takes every request without a certain event."""
    return lambda names: verdict if poison in names else OK


def health(book: Book) -> Health:
    """Return how well the destination is."""
    return book.schedule.health.state


def quiet(book: Book, seconds: float) -> None:
    """Let time pass in which nothing may be sent."""
    end = book.now + seconds
    due = book.schedule.next_request_at(book.now, eager=True)
    assert due is None or due >= end
    book.now = math.nextafter(end, 0)
    assert book.next(eager=True) is None
    book.now = end


def naming(*bad: int, slow: tuple[int, ...] = (), code: int = 400) -> Sort:
    """Return an answer that names events by their place."""
    return Sort(code, "named", dict.fromkeys(bad, "bad field"), frozenset(slow))
