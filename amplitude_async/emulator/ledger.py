"""What arrived: requests, events with what became of them, and exact counters."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Literal

from .index import Identities, UserIndex, event_keys
from .judgement import JsonObject, Judgement
from .kept import Kept
from .log import Log
from .reading import MAX_WEIGHT, weigh
from .records import EmulatorStats, ReceivedRequest
from .seen import Seen, Taken, Verdict, count_of
from .tally import Tally
from .users import batch_keys
from .waiting import Waiters

__all__ = ["Ledger", "Numbers", "Unit"]

Unit = Literal["event", "batch"]
"""What a vendor takes: Amplitude events, mParticle batches."""

# Amplitude HTTP V2 API, section "Event deduplication".
_EVENT_SECONDS = 7 * 86400.0
# mParticle JSON Reference, `source_request_id`: 30 to 60 days.
_BATCH_SECONDS = 30 * 86400.0
# What a request takes besides its text, and an event besides its values.
_HEAD_BYTES = 4_096
_SEEN_BYTES = 256
_LONG_KEY = 250
# Without a bound a long soak run would fill the memory with keys.
_DEDUP_KEYS = 1_000_000


class Numbers:
    """The last numbers given to what arrives; no ledger begins anew with them."""

    def __init__(self) -> None:
        self.seen = 0
        self.requests = 0

    def take(self, count: int) -> int:
        """Return the first of so many numbers that nothing else has."""
        self.seen += count
        return self.seen - count + 1

    def take_request(self) -> int:
        """Return the next number of a request."""
        self.requests += 1
        return self.requests


class _Shelf:
    """Keeps the newest of what one vendor was sent: what it stored, and what not.

    Apart from each other, so that no flood of the one drives out the other.
    """

    def __init__(
        self, keep: int, keep_bytes: int, seconds: float, identities: Identities
    ) -> None:
        self.stored: Kept[Seen] = Kept(keep, keep, keep_bytes)
        self.others: Kept[Seen] = Kept(keep, keep, keep_bytes)
        self.ingested = self.duplicates = self.rejected = 0
        self._seconds = seconds
        self._identities = identities
        self._index: UserIndex | None = None
        # Not a plain dict: that one gets slow when its oldest keys are deleted.
        self._known: OrderedDict[Hashable, float] = OrderedDict()

    @property
    def index(self) -> UserIndex:
        """Finds what is stored by its user; made when somebody asks."""
        if self._index is None:
            self._index = UserIndex(self._identities, self.stored.items)
        return self._index

    def put(
        self,
        judgement: Judgement,
        seen: Callable[[JsonObject, int, bool], Seen],
        now: float,
        weight: int,
    ) -> list[Seen]:
        """Store what was accepted, and return what of it is no copy."""
        self._forget(now - self._seconds)
        fresh = []
        keys = judgement.keys
        average = weight // max(1, len(judgement.events))
        places = _places(judgement)
        for unit, key, place in zip(judgement.accepted, keys, places, strict=False):
            if self._is_new(key, now):
                fresh.append(seen(unit, place, True))
            else:
                self.duplicates += 1
                self.keep_other(seen(unit, place, False), average)
        self.ingested += len(fresh)
        whole = len(fresh) == len(judgement.events)
        for one in fresh:
            # Of a part nobody knows how much of the weight it had.
            share = weight // len(fresh) if whole else _weight(one.event)
            self._store(one, share + _SEEN_BYTES)
        return fresh

    def keep_rejected(self, seen: Seen, weight: int) -> None:
        """Keep what was not taken, and count it."""
        self.rejected += 1
        self.keep_other(seen, weight)

    def keep_other(self, seen: Seen, weight: int) -> None:
        """Keep what was not stored."""
        self.others.put(seen, weight + _SEEN_BYTES + len(seen.reason))

    def absorb(self, later: _Shelf) -> None:
        """Take over what another one was sent later."""
        self.stored.extend(later.stored)
        self.others.extend(later.others)
        self.ingested += later.ingested
        self.duplicates += later.duplicates
        self.rejected += later.rejected
        self._known.update(later._known)
        self._index = None

    def _store(self, seen: Seen, weight: int) -> None:
        gone = self.stored.put(seen, weight)
        if self._index is not None:
            self._index.add(seen)
            for old in gone:
                self._index.forget(old)

    def _is_new(self, key: Hashable, now: float) -> bool:
        if key is None:
            return True
        key = _shortened(key)
        if key in self._known:
            return False
        self._known[key] = now
        return True

    def _forget(self, before: float) -> None:
        known = self._known
        while known:
            oldest = next(iter(known))
            if known[oldest] > before and len(known) <= _DEDUP_KEYS:
                return
            del known[oldest]


class Ledger:
    """Keeps the newest events, batches and requests, and counts all of them.

    One thread writes and any number may read.

    Args:
        keep_events: events and batches kept, each, as many that were not taken, and
            at most as many of both inside the kept requests.
        keep_requests: requests kept.
        keep_bytes: memory that kept events, batches and requests, and what was not
            taken of each, may take, each, as it is estimated; the newest of them
            stays, however large.
        waiting: who waits for events, and the lock that all share.
        numbers: the last ones given, where another ledger was before.
        changed: is told of each change, by whoever made it.
    """

    def __init__(
        self,
        keep_events: int,
        keep_requests: int,
        keep_bytes: int = 2**28,
        waiting: Waiters | None = None,
        *,
        numbers: Numbers | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        for name, value in (
            ("keep", keep_events),
            ("keep_requests", keep_requests),
            ("keep_bytes", keep_bytes),
        ):
            if value < 1:
                msg = f"{name} must be 1 or more, got {value!r}: raise it"
                raise ValueError(msg)
        self._waiting = Waiters() if waiting is None else waiting
        self._lock = self._waiting.lock
        self._shelves = {
            "event": _Shelf(keep_events, keep_bytes, _EVENT_SECONDS, event_keys),
            "batch": _Shelf(keep_events, keep_bytes, _BATCH_SECONDS, batch_keys),
        }
        self._requests: Kept[ReceivedRequest] = Kept(
            keep_requests, keep_events, keep_bytes
        )
        self._local: Kept[Seen] = Kept(keep_events, keep_events, keep_bytes)
        self._numbers = Numbers() if numbers is None else numbers
        self._changed = changed
        kept = [(shelf.stored, shelf.others) for shelf in self._shelves.values()]
        self.log = Log(self._lock, (*(one for two in kept for one in two), self._local))
        """All that arrived, and what clients told of, in one order."""
        self._tally = Tally()

    @property
    def events(self) -> Taken:
        """The newest Amplitude events stored, in order of arrival."""
        return self.taken("event")

    @property
    def batches(self) -> Taken:
        """The newest mParticle batches stored, in order of arrival."""
        return self.taken("batch")

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The newest requests, in order of being judged."""
        with self._lock:
            return list(self._requests.items)

    def taken(self, unit: Unit) -> Taken:
        """Return what was stored, which can be called for what was not."""
        return Taken(
            [seen.event for seen in self.stored(unit)], lambda: self.rejected(unit)
        )

    def stored(self, unit: Unit) -> list[Seen]:
        """Return what was stored, in order of arrival."""
        with self._lock:
            return list(self._shelves[unit].stored.items)

    def rejected(self, unit: Unit) -> list[Seen]:
        """Return what was not taken, in order of arrival, without copies."""
        with self._lock:
            others = list(self._shelves[unit].others.items)
        return [seen for seen in others if seen.verdict == "rejected"]

    def of_user(self, unit: Unit, name: str) -> list[Seen]:
        """Return what was stored of a user or device, in order of arrival."""
        with self._lock:
            return self._shelves[unit].index.of(name)

    def users(self, unit: Unit) -> list[str]:
        """Return the ids of users, and of devices that came without one."""
        with self._lock:
            return self._shelves[unit].index.names()

    @property
    def stats(self) -> EmulatorStats:
        """A snapshot of the counters."""
        with self._lock:
            events, batches = self._shelves["event"], self._shelves["batch"]
            return EmulatorStats(
                **self._tally.as_fields(),
                events_ingested=events.ingested,
                duplicates=events.duplicates,
                batches_ingested=batches.ingested,
                batch_duplicates=batches.duplicates,
                events_forgotten=events.stored.forgotten,
                batches_forgotten=batches.stored.forgotten,
                requests_forgotten=self._requests.forgotten,
                events_rejected=events.rejected,
                batches_rejected=batches.rejected,
                rejected_forgotten=events.others.forgotten + batches.others.forgotten,
                local_forgotten=self._local.forgotten,
            )

    @property
    def newest(self) -> tuple[int, int]:
        """The last number given to an event, and to a request."""
        # Under the lock: a number that is given is then kept as well.
        with self._lock:
            return self._numbers.seen, self._numbers.requests

    def requests_after(self, number: int, most: int) -> list[ReceivedRequest]:
        """Return the newest requests after a number, in order of being judged."""
        found = []
        with self._lock:
            for request in islice(reversed(self._requests.items), most):
                if request.number <= number:
                    break
                found.append(request)
        return found[::-1]

    def drop_connections(self, count: int) -> None:
        """Count connections that were closed without an answer."""
        with self._lock:
            self._tally.count_connections(count)
        self._changed()

    def record(
        self,
        request: ReceivedRequest,
        judgement: Judgement | None = None,
        *,
        dropped: int = 0,
    ) -> None:
        """Count and keep one request with all that is in it, in one step.

        Args:
            request: as it was answered.
            judgement: what to store of it, None for nothing.
            dropped: connections closed without a whole answer.
        """
        with self._lock:
            taken = judgement is not None and bool(judgement.accepted)
            number = self._numbers.take_request()
            request = replace(request, number=number, taken=taken)
            fresh: list[Seen] = []
            if judgement is not None:
                fresh = self._store(judgement, request)
            self._keep_rejected(request)
            self._count(request)
            self._tally.count_connections(dropped)
            # Last: whoever wakes shall find everything in its place.
            self._waiting.offer(fresh)
        self._changed()

    def record_local(self, reports: Iterable[Seen], weight: int) -> list[Seen]:
        """Keep what a client rejected or dropped by itself.

        Args:
            reports: without numbers.
            weight: about what each of them takes.
        """
        told = []
        with self._lock:
            for report in reports:
                number = self._numbers.take(count_of(report.unit, report.event))
                seen = replace(report, number=number)
                told.append(seen)
                self._tally.count_local(seen)
                self._local.put(seen, weight + _SEEN_BYTES + len(seen.reason))
        self._changed()
        return told

    def absorb(self, later: Ledger) -> None:
        """Take over what another ledger wrote down later."""
        with self._lock:
            for unit, shelf in self._shelves.items():
                shelf.absorb(later._shelves[unit])
            self._requests.extend(later._requests)
            self._local.extend(later._local)
            self._tally.absorb(later._tally)

    def _store(self, judgement: Judgement, request: ReceivedRequest) -> list[Seen]:
        def seen(unit: JsonObject, place: int, is_new: bool) -> Seen:  # noqa: FBT001 - its only caller is near
            return self._seen(
                request,
                unit,
                place,
                "" if is_new else "a copy of one that was stored before",
                verdict="stored" if is_new else "duplicate",
                kind=judgement.unit,
            )

        shelf = self._shelves[judgement.unit]
        self._tally.count_silent(judgement)
        fresh = shelf.put(judgement, seen, request.received_at, request.weight)
        return fresh if judgement.unit == "event" else []

    def _keep_rejected(self, request: ReceivedRequest) -> None:
        unit: Unit = "batch" if request.batches else "event"
        sent = request.batches or request.events
        shelf = self._shelves[unit]
        for index, reason in request.reasons.items():
            if index >= len(sent):
                continue
            seen = self._seen(
                request, sent[index], index, reason, verdict="rejected", kind=unit
            )
            shelf.keep_rejected(seen, request.weight // len(sent))

    def _seen(
        self,
        request: ReceivedRequest,
        unit: JsonObject,
        index: int,
        reason: str,
        *,
        verdict: Verdict,
        kind: Unit,
    ) -> Seen:
        return Seen(
            number=self._numbers.take(count_of(kind, unit)),
            received_at=request.received_at,
            verdict=verdict,
            reason=reason,
            status=request.status,
            request=request.number,
            index=index,
            event=unit,
            unit=kind,
        )

    def _count(self, request: ReceivedRequest) -> None:
        units = len(request.events) + len(request.batches)
        self._tally.count(request)
        self._requests.put(request, _head_weight(request) + request.weight, units)


def _places(judgement: Judgement) -> Iterator[int]:
    """Return where in the request each accepted unit stood."""
    count = len(judgement.accepted) + len(judgement.problems)
    return (index for index in range(count) if index not in judgement.problems)


def _head_weight(request: ReceivedRequest) -> int:
    headers = sum(len(name) + len(text) for name, text in request.headers.items())
    problems = sum(len(why) for why in request.problems.values())
    problems += _SEEN_BYTES * len(request.problems)
    return _HEAD_BYTES + headers + len(request.path) + len(request.note) + problems


def _weight(unit: JsonObject) -> int:
    try:
        return weigh(json.dumps(unit).encode())
    except RecursionError:
        return MAX_WEIGHT


def _shortened(key: Hashable) -> Hashable:
    """Return a key that is as good and never long: a million of them are kept."""
    text = repr(key)
    if len(text) <= _LONG_KEY:
        return key
    return hashlib.sha256(text.encode(errors="backslashreplace")).digest()
