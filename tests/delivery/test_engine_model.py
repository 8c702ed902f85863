"""Whatever users, time, faults and signals do to an engine, its promises hold."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from amplitude_async import (
    Config,
    Delivery,
    DeliveryResult,
    Overflow,
    QueueFullError,
)
from amplitude_async.delivery.endpoint import Response
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import engine_of, examples

__all__: list[str] = []

CAPACITY = 30
USERS = "abcd"
ANSWER_LOST = Response(0, error="ServerDisconnectedError: closed")
Events = list[dict[str, Any]]


def failing(status: int, body: object = None, **headers: str) -> Response:
    """Build an answer that takes nothing."""
    content = b"" if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, content, names)


class Server:
    """A server of changing moods that remembers what it took, and how often."""

    def __init__(self) -> None:
        self.mood = "well"
        self.taken: list[tuple[str, int]] = []
        self.unanswered: Counter[int] = Counter()

    def __call__(self, body: bytes) -> Response:
        """Answer a request."""
        events: Events = json.loads(body)["events"]
        return self._moods[self.mood](self, events)

    def _take(self, events: Events) -> Response:
        self.taken += [(event["user_id"], event["n"]) for event in events]
        return Response(200)

    def _take_silently(self, events: Events) -> Response:
        self._take(events)
        self.unanswered.update(event["n"] for event in events)
        return ANSWER_LOST

    def _throttle(self, events: Events) -> Response:
        slow = [i for i, event in enumerate(events) if event["user_id"] == "a"]
        body = {"code": 429, "throttled_events": slow, "throttled_users": {"a": 12}}
        return failing(429, body) if slow else self._take(events)

    def _name_one(self, events: Events) -> Response:
        bad = [i for i, event in enumerate(events) if event["n"] % 3 == 0][:1]
        body = {"code": 400, "events_with_invalid_fields": {"time": bad}}
        return failing(400, body) if bad else self._take(events)

    def _object_to_some(self, events: Events) -> Response:
        poisonous = any(event["n"] % 5 == 0 for event in events)
        return failing(400) if poisonous else self._take(events)

    def _want_less(self, events: Events) -> Response:
        return failing(413) if len(events) > 2 else self._take(events)

    _moods: dict[str, Callable[["Server", Events], Response]] = {  # noqa: RUF012 - a table
        "well": _take,
        "well, without an answer": _take_silently,
        "500": lambda _, __: failing(500),
        "503 with Retry-After": lambda _, __: failing(503, retry_after="20"),
        "gone": lambda _, __: Response(0, error="refused"),
        "429": lambda _, __: failing(429),
        "429 now": lambda _, __: failing(429, retry_after="0"),
        "throttling": _throttle,
        "naming one": _name_one,
        "objecting to some": _object_to_some,
        "objecting to all": lambda _, __: failing(403),
        "wanting less": _want_less,
        "refusing": lambda _, __: failing(401),
    }
    moods = tuple(_moods)


class EngineMachine(RuleBasedStateMachine):
    """Four users, a handful of tasks, an unreliable server and a clock of our own."""

    @initialize(
        seed=st.integers(0, 1_000),
        overflow=st.sampled_from(Overflow),
        retries=st.sampled_from([0, 2, 12]),
        rate=st.sampled_from([None, None, 5.0]),
    )
    def build(
        self, seed: int, overflow: Overflow, retries: int, rate: float | None
    ) -> None:
        """Start an engine of narrow bounds."""
        self.runner = asyncio.Runner()
        loop = self.runner.get_loop()
        loop.set_debug(enabled=False)
        # In order of creation: `all_tasks` is a set, in the order of addresses.
        self.tasks: list[asyncio.Task[Any]] = []
        loop.set_task_factory(self.new_task)
        self.clock = FakeClock()
        self.server = Server()
        self.transport = ScriptedTransport(then=self.server, clock=self.clock)
        self.results: list[DeliveryResult] = []
        self.accepted: list[tuple[str, int, Delivery]] = []
        self.tracking: list[asyncio.Task[None]] = []
        self.waiting: list[asyncio.Task[Any]] = []
        self.tracked = 0
        self.closing: asyncio.Task[Any] | None = None
        config = Config(
            api_key="key",
            server_url="http://server.invalid/",
            flush_queue_size=4,
            max_batch_size=8,
            max_in_flight=3,
            flush_max_retries=retries,
            max_storage_capacity=CAPACITY,
            max_events_per_second=rate,
            overflow=overflow,
            callback=self.results.append,
        )
        self.engine = engine_of(config, self.transport, self.clock, seed=seed)
        self.run(self.engine.start())

    def new_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        **options: Any,
    ) -> "asyncio.Task[Any]":
        """Make a task of this loop, and remember it."""
        task = asyncio.Task(coroutine, loop=loop, **options)
        self.tasks.append(task)
        return task

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Let something happen, and then everything that follows from it at once."""

        async def until_quiet() -> None:
            await coroutine
            await self.clock.settle()

        self.runner.run(until_quiet())

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start something that may have to wait."""
        return self.runner.get_loop().create_task(coroutine)

    async def track(self, user: str, number: int) -> None:
        """Accept one event, as a verb does."""
        body = json.dumps({"user_id": user, "n": number}).encode()
        record = Record(0, body, user, user, None, str(number), self.clock.wall())
        try:
            delivery = await self.engine.intake.accept(record)
        except QueueFullError:
            return
        self.accepted.append((user, number, delivery))

    # What users do -----------------------------------------------------------

    @precondition(lambda self: self.closing is None)
    @rule(users=st.lists(st.sampled_from(USERS), min_size=1, max_size=8))
    def track_some(self, users: list[str]) -> None:
        """Track from as many tasks as there are events."""
        for user in users:
            self.tracked += 1
            self.tracking.append(self.spawn(self.track(user, self.tracked)))
        self.run(self.clock.settle())

    @rule(timeout=st.sampled_from([None, 0.0, 1.0, 40.0]))
    def flush(self, timeout: float | None) -> None:
        """Flush, in a task that may wait for long."""
        self.waiting.append(self.spawn(self.engine.flush(timeout)))
        self.run(self.clock.settle())

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def wait_for_one(self, data: st.DataObject) -> None:
        """Await a handle, old or new."""
        _, _, delivery = data.draw(st.sampled_from(self.accepted))

        async def wait() -> None:
            await delivery

        self.waiting.append(self.spawn(wait()))
        self.run(self.clock.settle())

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel somebody who waits: for room, for a flush or for an outcome."""
        waiting = [t for t in (*self.tracking, *self.waiting) if not t.done()]
        if waiting:
            data.draw(st.sampled_from(waiting)).cancel()
            self.run(self.clock.settle())

    @rule(user=st.sampled_from([None, *USERS]))
    def purge(self, user: str | None) -> None:
        """Give up what waits, of one user or all."""
        self.run(self.engine.purge(user))

    @precondition(lambda self: self.closing is None and self.tracked > 20)
    @rule(timeout=st.sampled_from([0.0, 1.0, 40.0]))
    def shut_down(self, timeout: float) -> None:
        """Shut down, in a task: it takes as long as it is given at the most."""
        self.closing = self.spawn(self.engine.shutdown(timeout))
        self.run(self.clock.settle())

    # What the world does -----------------------------------------------------

    @rule(mood=st.sampled_from(Server.moods))
    def change_mood(self, mood: str) -> None:
        """The server changes."""
        self.server.mood = mood

    @rule(hang=st.booleans())
    def hang_or_answer(self, *, hang: bool) -> None:
        """The server stops answering, or answers everything that hangs."""
        self.transport.hang() if hang else self.transport.release()
        self.run(self.clock.settle())

    @rule(seconds=st.sampled_from([0.02, 0.5, 11.0, 31.0, 61.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Time passes."""
        self.run(self.clock.advance(seconds))

    @rule(kind=st.sampled_from(["flush", "request", "callback"]))
    def kill(self, kind: str) -> None:
        """Somebody cancels tasks that are not his."""
        for task in self.tasks:
            if task.get_name().startswith("amplitude_async") and (
                task.get_name().endswith(kind)
            ):
                task.cancel()
        self.run(self.clock.settle())

    # What must hold ----------------------------------------------------------

    @invariant()
    def the_account_adds_up(self) -> None:
        """Every accepted event is somewhere, once."""
        if not hasattr(self, "engine"):
            return
        stats = self.engine.stats
        assert stats.balanced, stats
        assert stats.accepted == len(self.accepted)
        assert 0 <= stats.held <= CAPACITY // 2
        assert stats.held <= stats.pending <= CAPACITY
        assert stats.queue_bytes >= 0
        assert bool(stats.queue_bytes) == bool(stats.pending)

    @invariant()
    def nothing_happens_twice(self) -> None:
        """One callback per event, and a second copy only where an answer was lost."""
        if not hasattr(self, "engine"):
            return
        calls = Counter(result.insert_id for result in self.results)
        assert not calls or max(calls.values()) == 1
        for number, times in Counter(n for _, n in self.server.taken).items():
            assert times <= 1 + self.server.unanswered[number]

    @invariant()
    def no_user_is_overtaken_by_itself(self) -> None:
        """Events of one user reach the server in the order of acceptance."""
        if not hasattr(self, "engine"):
            return
        first = list(dict.fromkeys(self.server.taken))
        reached = set(first)
        for user in USERS:
            own = [n for u, n, _ in self.accepted if u == user]
            arrived = [n for u, n in first if u == user]
            assert arrived == [n for n in own if (user, n) in reached]

    @invariant()
    def nothing_storms(self) -> None:
        """Requests are bounded by events and by time, whatever the server says."""
        if not hasattr(self, "engine"):
            return
        bound = 10 + 4 * len(self.accepted) + 20 * self.clock.now()
        assert len(self.transport.requests) <= bound

    def teardown(self) -> None:
        """Once the server is well everything settles, and everybody goes home."""
        if not hasattr(self, "engine"):
            return
        with self.runner:
            self.server.mood = "well"
            self.transport.release()
            self.run(self.clock.advance(30.0))
            for _ in range(20):
                if not self.engine.stats.pending:
                    break
                self.run(self.clock.advance(400.0))
            self.settled()
            self.run(self.engine.shutdown(0.0))
            self.the_account_adds_up()
            self.nothing_happens_twice()
            self.no_user_is_overtaken_by_itself()

    def settled(self) -> None:
        """Check that nothing and nobody waits any more, and who was told what."""
        stats = self.engine.stats
        assert (stats.pending, stats.held, stats.queue_bytes) == (0, 0, 0)
        assert all(task.done() for task in (*self.tracking, *self.waiting))
        taken = {number for _, number in self.server.taken}
        for _, number, delivery in self.accepted:
            result = delivery.result
            assert result is not None
            assert number in taken or not result.ok


TestEngine = pytest.mark.long(EngineMachine.TestCase)
TestEngine.settings = settings(
    max_examples=examples(400),
    stateful_step_count=40,
    deadline=None,
)
