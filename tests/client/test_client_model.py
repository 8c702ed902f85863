"""Whatever users, plugins, storages, servers and time do to a client, it keeps faith.

The model of the engine alone is in ``tests/delivery``. Here everything is in play that
a service may have: verbs, plugins, destinations of both kinds, a callback, a storage,
a logging handler, a wall clock that jumps and a fork. All time is virtual, that of
asyncio itself included, so that an example repeats.
"""

import asyncio
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import aiohttp
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
    Amplitude,
    Delivery,
    DeliveryResult,
    DeliveryStatus,
    DestinationPlugin,
    DropReason,
    EnrichmentPlugin,
    Event,
    Identify,
    Overflow,
    Plugin,
    QueueFullError,
    Stats,
)
from amplitude_async.client import home
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.transport import Transport
from amplitude_async.exceptions import StorageError, StorageFullError
from amplitude_async.mparticle import MParticle, MParticleDestination
from amplitude_async.storage import MemoryStorage, Storage
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock, ScriptedTransport
from tests.conftest import examples

__all__: list[str] = []

CAPACITY = 20
USERS = "abcd"
HOUR = 3_600.0
# What a shutdown may take beyond its deadline, where user code or a storage is stuck:
# the graces that the storage, the tasks and the plugins get.
GRACE = 6.0
# What a verb may take: room, the callback's queue, the storage, and a plugin's nap.
MOST_PATIENCE = 5.0
NESTED = "tracked by user code"
ANSWER_LOST = Response(0, error="ServerDisconnectedError: closed")

Taken = list[tuple[str, str]]
Events = list[dict[str, Any]]


# Time -------------------------------------------------------------------------


class JumpyClock(FakeClock):
    """Virtual time whose wall clock somebody sets now and then."""

    def jump(self, seconds: float) -> None:
        """Set the wall clock; waits go on as before."""
        self._epoch += seconds


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in the time of a fake clock; it knows its tasks in order."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        # `asyncio.all_tasks` is a set, in the order of addresses.
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.parents: frozenset[asyncio.Task[Any]] = frozenset()
        """Tasks of a process that this one was forked from: nothing but copies."""
        self.complaints: list[str] = []
        super().__init__()
        self.set_debug(enabled=False)
        self.set_exception_handler(self._note)

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.complaints.append(f"{context['message']}: {error!r}")

    def time(self) -> float:
        """Read the fake clock."""
        return self._clock.now()

    def call_at(  # type: ignore[override] # any callback
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Set a timer of the fake clock."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def fire() -> None:
            if not handle.cancelled():
                handle._run()  # noqa: SLF001 - as the loop itself does

        self._clock.call_later(when - self.time(), fire)
        return handle

    def call_soon(  # type: ignore[override] # any callback
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Note the tasks: each begins with a call of its first step."""
        task = getattr(callback, "__self__", None)
        if isinstance(task, asyncio.Task):
            self.tasks[task] = None
        return super().call_soon(callback, *args, context=context)

    def running_tasks(self, *endings: str) -> list[asyncio.Task[Any]]:
        """List the tasks of ours that run, of these kinds or all, in order."""
        self.tasks = {task: None for task in self.tasks if not task.done()}
        return [
            task
            for task in self.tasks
            if task not in self.parents
            and task.get_name().startswith("amplitude_async")
            and (not endings or task.get_name().endswith(endings))
        ]


# Servers ----------------------------------------------------------------------


def failing(status: int, body: object = None, **headers: str) -> Response:
    """Build an answer that takes nothing."""
    content = b"" if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, content, names)


class Server:
    """A server of changing moods that remembers what it took, and how often."""

    def __init__(self) -> None:
        self.mood = "well"
        self.taken: Taken = []
        self.unanswered: Counter[str] = Counter()

    def __call__(self, body: bytes) -> Response:
        """Answer a request."""
        return self._moods[self.mood](self, self._read(body))

    def _read(self, body: bytes) -> Taken:
        events: Events = json.loads(body)["events"]
        return [(event["user_id"], event["insert_id"]) for event in events]

    def _take(self, events: Taken) -> Response:
        self.taken += events
        return Response(202)

    def _take_silently(self, events: Taken) -> Response:
        self._take(events)
        self.unanswered.update(name for _, name in events)
        return ANSWER_LOST

    def _throttle(self, events: Taken) -> Response:
        slow = [i for i, (user, _) in enumerate(events) if user == "a"]
        body = {"code": 429, "throttled_events": slow, "throttled_users": {"a": 12}}
        return failing(429, body) if slow else self._take(events)

    def _name_one(self, events: Taken) -> Response:
        bad = [i for i, (_, name) in enumerate(events) if name.endswith("3")][:1]
        body = {"code": 400, "events_with_invalid_fields": {"time": bad}}
        return failing(400, body) if bad else self._take(events)

    def _object_to_some(self, events: Taken) -> Response:
        poisonous = any(name.endswith("5") for _, name in events)
        return failing(400) if poisonous else self._take(events)

    def _break_at_some(self, events: Taken) -> Response:
        poisonous = any(name.endswith("5") for _, name in events)
        return failing(500) if poisonous else self._take(events)

    def _want_less(self, events: Taken) -> Response:
        return failing(413) if len(events) > 2 else self._take(events)

    _moods: dict[str, Callable[["Server", Taken], Response]] = {  # noqa: RUF012 - a table
        "well": _take,
        "well, without an answer": _take_silently,
        "500": lambda _, __: failing(500),
        "503": lambda _, __: failing(503),
        "503 with Retry-After": lambda _, __: failing(503, retry_after="20"),
        "gone": lambda _, __: Response(0, error="refused"),
        "429": lambda _, __: failing(429),
        "429 now": lambda _, __: failing(429, retry_after="0"),
        "throttling": _throttle,
        "naming one": _name_one,
        "objecting to some": _object_to_some,
        "breaking at some": _break_at_some,
        "objecting to all": lambda _, __: failing(403),
        "wanting less": _want_less,
        "refusing": lambda _, __: failing(401),
    }
    moods = tuple(_moods)


class OtherServer(Server):
    """The server of another vendor: batches instead of events."""

    def _read(self, body: bytes) -> Taken:
        batches = json.loads(body)
        return [
            (
                batch.get("user_identities", {}).get("customer_id", ""),
                event["data"]["source_message_id"],
            )
            for batch in (batches if isinstance(batches, list) else [batches])
            for event in batch.get("events", ())
        ]


# A storage --------------------------------------------------------------------

FAULTS: Final[dict[str, Callable[[], BaseException]]] = {
    "OSError": lambda: OSError("read-only file system"),
    "StorageError": lambda: StorageError("locked"),
    "StorageFullError": lambda: StorageFullError("its own limit"),
    "KeyError": lambda: KeyError("a bug"),
    "CancelledError": asyncio.CancelledError,
}
METHODS: Final = ("append", "fetch", "settle", "adopt", "size", "close")


class Shelf(Storage):
    """A storage on a dict that works off its calls in order; any may fail or stall."""

    durable = True

    def __init__(self) -> None:
        self.rows: dict[int, Record] = {}
        self.faults: dict[str, str] = {}
        self.closed = False
        self.child: Shelf | None = None
        self._calls: deque[tuple[str, Callable[[], Any], asyncio.Future[Any]]] = deque()

    def _call(self, method: str, work: Callable[[], Any]) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._calls.append((method, work, future))
        # Not at once: a later call must not end before those that wait hear of theirs.
        loop.call_soon(self.work)
        return future

    def work(self) -> None:
        """Do what was asked for, up to a call that stalls."""
        while self._calls and self.faults.get(self._calls[0][0]) != "stall":
            method, work, future = self._calls.popleft()
            fault = self.faults.get(method)
            if fault is not None:
                self._fail(future, FAULTS[fault]())
                continue
            # As in a thread: who is cancelled meanwhile does not take it back.
            answer = work()
            if not future.done():
                future.set_result(answer)

    @staticmethod
    def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        elif not future.done():
            future.set_exception(error)
            future.exception()  # whoever gave up waiting leaves no line in the log

    async def open(self, _: str, __: Callable[[int], int]) -> int:
        """Start empty."""
        return 0

    def after_fork(self) -> "Shelf":
        """Make the shelf of a child; this one stays the parent's."""
        self.child = Shelf()
        return self.child

    def append(self, records: Sequence[Record]) -> "asyncio.Future[None]":
        """Put records on the shelf."""
        return self._call("append", lambda: self._put(records))

    def _put(self, records: Sequence[Record]) -> None:
        self.rows |= {record.id: record for record in records}

    async def fetch(self, after: int, limit: int, _: int) -> list[Record]:
        """Read on."""

        def read() -> list[Record]:
            found = [row for number, row in sorted(self.rows.items()) if number > after]
            return found[:limit]

        page: list[Record] = await self._call("fetch", read)
        return page

    async def settle(self, ids: Sequence[int]) -> None:
        """Take records off the shelf."""

        def forget() -> None:
            for number in ids:
                self.rows.pop(number, None)

        await self._call("settle", forget)

    async def adopt(self, _: Callable[[int], int]) -> int:
        """Find nothing, or fail to."""
        found: int = await self._call("adopt", lambda: 0)
        return found

    async def size(self) -> int:
        """Count the records."""
        size: int = await self._call("size", lambda: len(self.rows))
        return size

    async def close(self) -> None:
        """Keep the shelf."""

        def close() -> None:
            self.closed = True

        await self._call("close", close)


# User code --------------------------------------------------------------------


class UserError(Exception):
    """What code of users raises here."""


class Temper:
    """What user code is like at the moment, all of it."""

    def __init__(self) -> None:
        self.calm()

    def calm(self) -> None:
        """Behave, all of it."""
        self.plugin = "fine"
        self.plain = "fine"
        self.callback = "fine"
        self.logging = "fine"


PLUGIN_TEMPERS: Final = (
    "fine",
    "raises",
    "cancels",
    "drops",
    "replaces",
    "tracks",
    "naps",
)
PLAIN_TEMPERS: Final = ("fine", "raises", "cancels", "hangs", "tracks", "naps")
CALLBACK_TEMPERS: Final = (
    "fine",
    "raises",
    "cancels",
    "naps",
    "tracks",
    "tracks at once",
    "flushes",
)
LOGGING_TEMPERS: Final = ("fine", "raises", "reads")


class Moody(EnrichmentPlugin):
    """A plugin of changing temper."""

    name = "moody"

    def __init__(self, machine: "ClientMachine") -> None:
        self._machine = machine

    async def execute(self, event: Event) -> Event | None:
        """Do to an event what the temper says."""
        temper = self._machine.temper.plugin
        if temper == "raises":
            raise UserError(temper)
        if temper == "cancels":
            raise asyncio.CancelledError
        if temper == "drops":
            return None
        if temper == "replaces":
            return event.model_copy(update={"event_properties": {"replaced": True}})
        if temper == "tracks" and event.event_type != NESTED:
            await self._machine.track(event.user_id or "a", NESTED)
        if temper == "naps":
            await asyncio.sleep(0.2)
        return event


class MoodyPlain(DestinationPlugin):
    """A plain destination of changing temper."""

    name = "plain"

    def __init__(self, machine: "ClientMachine") -> None:
        self._machine = machine
        self.seen: Counter[str] = Counter()

    async def execute(self, event: Event) -> None:
        """Do with an event what the temper says."""
        temper = self._machine.temper.plain
        self.seen[event.insert_id or ""] += 1
        if temper == "raises":
            raise UserError(temper)
        if temper == "cancels":
            raise asyncio.CancelledError
        if temper == "hangs":
            await asyncio.Event().wait()
        if temper == "naps":
            await asyncio.sleep(0.2)
        if temper == "tracks" and event.event_type != NESTED:
            await self._machine.track(event.user_id or "a", NESTED)


class Handler(logging.Handler):
    """A logging handler of changing temper."""

    def __init__(self, machine: "ClientMachine") -> None:
        super().__init__(logging.INFO)
        self._machine = machine
        self.unbalanced: list[Stats] = []

    def emit(self, _: logging.LogRecord) -> None:
        """Do nothing, raise, or read the account as the line comes."""
        temper = self._machine.temper.logging
        if temper == "raises":
            raise UserError(temper)
        client = self._machine.client
        if temper == "reads" and client is not None:
            stats = client.stats
            every = [stats, *stats.destinations.values()]
            self.unbalanced += [one for one in every if not one.balanced]


class Virtual(Amplitude):
    """A client on a clock and a network of the test's."""

    def __init__(self, clock: Clock, network: Transport, **options: Any) -> None:
        self._given = clock, network
        super().__init__("key", **options)

    def _make_clock(self) -> Clock:
        return self._given[0]

    def _make_transport(self, _session: aiohttp.ClientSession | None) -> Transport:
        return self._given[1]


class VirtualMParticle(MParticle):
    """The other vendor's client, likewise."""

    def __init__(self, clock: Clock, network: Transport, **options: Any) -> None:
        self._given = clock, network
        super().__init__("key", "secret", **options)

    def _make_clock(self) -> Clock:
        return self._given[0]

    def _make_transport(self, _session: aiohttp.ClientSession | None) -> Transport:
        return self._given[1]


# The machine ------------------------------------------------------------------


@dataclass
class Accepted:
    """One event for which a verb returned a handle."""

    user: str
    delivery: Delivery
    at_once: bool
    """True where synchronous code tracked it."""
    result: DeliveryResult | None = None
    """The first result that the handle had."""

    @property
    def name(self) -> str:
        """The key under which servers and callbacks know it."""
        return self.delivery.insert_id


@dataclass
class Waiting:
    """A task of the user's, and when it must have ended."""

    task: asyncio.Task[Any]
    what: str
    until: float


class ClientMachine(RuleBasedStateMachine):
    """Four users, a handful of tasks, and a world in which everything may fail."""

    client: Virtual | None = None

    @initialize(
        seed=st.integers(0, 1_000),
        overflow=st.sampled_from(Overflow),
        retries=st.sampled_from([None, None, 2]),
        rate=st.sampled_from([None, None, 5.0]),
        durable=st.booleans(),
        plugins=st.sampled_from(["", "", "m", "p", "mo", "po", "mpo", "o"]),
    )
    def build(
        self,
        seed: int,
        overflow: Overflow,
        retries: int | None,
        rate: float | None,
        *,
        durable: bool,
        plugins: str,
    ) -> None:
        """Start a client of narrow bounds."""
        self.clock = JumpyClock()
        self.loop = VirtualLoop(self.clock)
        self.pid = os.getpid()
        self.temper = Temper()
        self.server, self.other_server = Server(), OtherServer()
        self.network = ScriptedTransport(then=self.server, clock=self.clock)
        self.other_network = ScriptedTransport(then=self.other_server, clock=self.clock)
        self.shelf = Shelf() if durable else None
        self.plain = MoodyPlain(self)
        self.results: list[DeliveryResult] = []
        self.accepted: list[Accepted] = []
        self.waiting: list[Waiting] = []
        self.moods = {"well"}
        self.tracked = 0
        self.killed = False
        self.bursts = False
        self.append_failed = False
        self.fetch_failed = False
        self.forked_at: tuple[int, int] | None = None
        self.closing: Waiting | None = None
        self.handler = Handler(self)
        logger = logging.Logger("model", logging.INFO)  # noqa: LOG001 - nobody else's
        logger.addHandler(self.handler)
        options: dict[str, Any] = {"logger": logger, "compression": None}
        options |= {} if retries is None else {"flush_max_retries": retries}
        self.retries = retries
        made: dict[str, Callable[[], Plugin]] = {
            "m": lambda: Moody(self),
            "p": lambda: self.plain,
            "o": lambda: MParticleDestination(self.make_other(options)),
        }
        self.client = Virtual(
            self.clock,
            self.network,
            server_url="http://server.invalid/",
            min_id_length=1,
            plugins=[made[kind]() for kind in plugins],
            flush_queue_size=4,
            max_batch_size=8,
            max_in_flight=3,
            max_storage_capacity=CAPACITY,
            max_events_per_second=rate,
            overflow=overflow,
            storage=self.shelf or MemoryStorage(),
            callback=self.call_back,
            **options,
        )
        self.client._own._engine._site.rng.seed(seed)  # noqa: SLF001 - or it differs
        self.run(self.client.start())

    def make_other(self, options: dict[str, Any]) -> MParticle:
        """Make the client of the other vendor."""
        other = VirtualMParticle(
            self.clock,
            self.other_network,
            base_url="http://other.invalid/",
            environment="development",
            max_batch_size=4,
            max_storage_capacity=CAPACITY,
            **options,
        )
        other._own._engine._site.rng.seed(7)  # noqa: SLF001 - or it differs
        return other

    # How things are run ------------------------------------------------------

    @contextmanager
    def in_process(self) -> Iterator[None]:
        """Be in the process that the example is in by now."""
        with mock.patch.object(os, "getpid", return_value=self.pid):
            yield

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Let something happen, and then everything that follows from it at once."""

        async def until_quiet() -> None:
            await coroutine
            await self.clock.settle()

        with self.in_process():
            self.loop.run_until_complete(until_quiet())

    def start(
        self, coroutine: Coroutine[Any, Any, Any], what: str, patience: float | None
    ) -> Waiting:
        """Start something of the user's that may have to wait."""
        until = float("inf") if patience is None else self.clock.now() + patience
        with self.in_process():
            task = self.loop.create_task(coroutine)
        begun = Waiting(task, what, until)
        self.waiting.append(begun)
        self.run(self.clock.settle())
        return begun

    def next_name(self) -> str:
        """Name the next event."""
        self.tracked += 1
        return f"event-{self.tracked:05d}"

    def enter(self, user: str, delivery: Delivery, *, at_once: bool = False) -> None:
        """Note that an event was accepted."""
        self.accepted.append(Accepted(user, delivery, at_once))

    async def track(self, user: str, kind: str = "e", verb: str = "name") -> None:
        """Track one event by one of the verbs."""
        client = self.client
        assert client is not None
        process = self.pid
        names: Any = {"user_id": user, "insert_id": self.next_name()}
        try:
            if verb == "name":
                delivery = await client.track(kind, **names)
            elif verb == "event":
                delivery = await client.track(Event(event_type=kind, **names))
            elif verb == "identify":
                delivery = await client.identify(Identify().set("k", 1), **names)
            elif verb == "bad time":
                bad: Any = "yesterday"
                delivery = await client.track(kind, time=bad, **names)
            else:
                delivery = await client.track(kind, insert_id=names["insert_id"])
        except QueueFullError:
            return
        result = delivery.result
        if process == self.pid or result is None or not_forked(result):
            self.enter(user, delivery)

    def track_at_once(self, user: str, kind: str = "e") -> None:
        """Track one event as synchronous code does."""
        client = self.client
        assert client is not None
        names: Any = {"user_id": user, "insert_id": self.next_name()}
        try:
            delivery = client.track_nowait(kind, **names)
        except QueueFullError:
            return
        self.bursts = True
        self.enter(user, delivery, at_once=True)

    async def call_back(self, result: DeliveryResult) -> None:
        """Hear of a result, as the temper says."""
        self.results.append(result)
        temper = self.temper.callback
        if temper == "raises":
            raise UserError(temper)
        if temper == "cancels":
            raise asyncio.CancelledError
        if temper == "naps":
            await asyncio.sleep(0.3)
        if temper == "flushes":
            assert self.client is not None
            await self.client.flush(0.1)
        # Not about an event of user code: that would go on in a circle.
        if result.event.event_type == NESTED:
            return
        if temper == "tracks":
            await self.track("b", NESTED)
        if temper == "tracks at once":
            self.track_at_once("b", NESTED)

    # What users do -----------------------------------------------------------

    @rule(
        users=st.lists(st.sampled_from(USERS), min_size=1, max_size=8),
        verb=st.sampled_from(["name", "name", "event", "identify"]),
    )
    def track_some(self, users: list[str], verb: str) -> None:
        """Track from as many tasks as there are events."""
        for user in users:
            # At the same time: nothing runs between them.
            with self.in_process():
                task = self.loop.create_task(self.track(user, verb=verb))
            until = self.clock.now() + MOST_PATIENCE
            self.waiting.append(Waiting(task, verb, until))
        self.run(self.clock.settle())

    @rule(users=st.lists(st.sampled_from(USERS), min_size=1, max_size=8))
    def track_in_a_loop(self, users: list[str]) -> None:
        """Track one after the other in one task."""

        async def loop() -> None:
            for user in users:
                await self.track(user)

        self.start(loop(), "a loop of verbs", MOST_PATIENCE * len(users))

    @rule(verb=st.sampled_from(["bad time", "no user"]))
    def track_badly(self, verb: str) -> None:
        """Track what no server would take."""
        self.start(self.track("c", verb=verb), verb, MOST_PATIENCE)

    @rule(users=st.lists(st.sampled_from(USERS), min_size=1, max_size=30))
    def track_in_a_burst(self, users: list[str]) -> None:
        """Track from synchronous code."""

        async def burst() -> None:
            for user in users:
                self.track_at_once(user)

        self.run(burst())

    @rule(opt_out=st.booleans())
    def opt(self, *, opt_out: bool) -> None:
        """Opt out, or in again."""
        assert self.client is not None
        self.client.opt_out = opt_out

    @rule(timeout=st.sampled_from([None, 0.0, 1.0, 40.0]))
    def flush(self, timeout: float | None) -> None:
        """Flush, in a task that may wait for long."""
        assert self.client is not None
        # A plugin's own flush has a moment even where no time is left.
        patience = None if timeout is None else timeout + 0.1
        self.start(self.client.flush(timeout), f"flush({timeout})", patience)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def wait_for_one(self, data: st.DataObject) -> None:
        """Await a handle, old or new."""
        numbers = st.integers(0, len(self.accepted) - 1)
        delivery = self.accepted[data.draw(numbers)].delivery

        async def wait() -> None:
            await delivery

        self.start(wait(), "a handle", None)

    @rule(number=st.integers(0, 20))
    def cancel(self, number: int) -> None:
        """Cancel somebody who waits: for room, for a flush or for an outcome."""
        waiting = [one for one in self.waiting if not one.task.done()]
        if waiting:
            waiting[number % len(waiting)].task.cancel()
            self.run(self.clock.settle())

    @rule(user=st.sampled_from([None, *USERS]))
    def purge(self, user: str | None) -> None:
        """Give up what waits, of one user or all."""
        assert self.client is not None
        self.start(self.client.purge(user), "a purge", None)

    @precondition(lambda self: self.tracked > 10)
    @rule(timeout=st.sampled_from([0.0, 1.0, 40.0]))
    def shut_down(self, timeout: float) -> None:
        """Shut down; the second time joins the first."""
        assert self.client is not None
        if self.closing is None:
            patience, what = timeout + GRACE, f"shutdown({timeout})"
        else:
            left = self.closing.until - self.clock.now()
            patience, what = max(left, 0.1), "a second shutdown"
        begun = self.start(self.client.shutdown(timeout), what, patience)
        self.closing = self.closing or begun

    # What user code, storages and the world do -------------------------------

    @rule(
        plugin=st.sampled_from(PLUGIN_TEMPERS),
        plain=st.sampled_from(PLAIN_TEMPERS),
    )
    def change_plugins(self, plugin: str, plain: str) -> None:
        """The plugins change."""
        self.temper.plugin, self.temper.plain = plugin, plain

    @rule(callback=st.sampled_from(CALLBACK_TEMPERS))
    def change_callback(self, callback: str) -> None:
        """The callback changes."""
        self.temper.callback = callback

    @rule(handler=st.sampled_from(LOGGING_TEMPERS))
    def change_logging(self, handler: str) -> None:
        """The logging handler changes."""
        self.temper.logging = handler

    @precondition(lambda self: self.shelf is not None)
    @rule(
        methods=st.sets(st.sampled_from(METHODS), min_size=1),
        fault=st.sampled_from(["stall", "stall", *FAULTS]),
    )
    def break_storage(self, methods: set[str], fault: str) -> None:
        """The storage fails or stalls, in one place or several."""
        assert self.shelf is not None
        self.append_failed |= "append" in methods
        self.fetch_failed |= "fetch" in methods
        self.shelf.faults |= dict.fromkeys(sorted(methods), fault)
        self.run(self.work_storage())

    @precondition(lambda self: self.shelf is not None and self.shelf.faults)
    @rule()
    def mend_storage(self) -> None:
        """The storage works again."""
        assert self.shelf is not None
        self.shelf.faults.clear()
        self.run(self.work_storage())

    async def work_storage(self) -> None:
        """Let the storage do what stalled."""
        if self.shelf is not None:
            self.shelf.work()

    @rule(mood=st.sampled_from(Server.moods), other=st.booleans())
    def change_mood(self, mood: str, *, other: bool) -> None:
        """A server changes."""
        if other:
            self.other_server.mood = mood
        else:
            self.server.mood = mood
            self.moods.add(mood)

    @rule(hang=st.booleans(), other=st.booleans())
    def hang_or_answer(self, *, hang: bool, other: bool) -> None:
        """A server stops answering, or answers everything that hangs."""
        network = self.other_network if other else self.network
        network.hang() if hang else network.release()
        self.run(self.clock.settle())

    @rule(seconds=st.sampled_from([0.02, 0.5, 2.0, 11.0, 31.0, 61.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Time passes."""
        self.run(self.clock.advance(seconds))

    @rule(seconds=st.sampled_from([-30 * 24 * HOUR, -HOUR, 5.0, HOUR, 300 * 24 * HOUR]))
    def set_wall_clock(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.clock.jump(seconds)

    @precondition(lambda self: self.closing is None)
    @rule(
        kind=st.sampled_from(["flush", "request", "callback", "reader", "plain"]),
    )
    def kill(self, kind: str) -> None:
        """Somebody cancels tasks that are not his."""
        self.killed = True
        for task in self.loop.running_tasks(kind):
            task.cancel()
        self.run(self.clock.settle())

    @precondition(
        lambda self: (
            self.closing is None and self.forked_at is None and self.tracked > 10
        )
    )
    @rule()
    def fork(self) -> None:
        """Go on as the child of a fork would, with the same loop object."""
        # A verb of the parent's ends in the parent.
        for one in self.waiting:
            one.task.cancel()
        self.run(self.clock.settle())
        inherited, self.accepted = self.accepted, []
        self.inherited = {one.name for one in inherited}
        self.loop.parents = frozenset(self.loop.tasks)
        self.waiting, self.results = [], []
        self.plain.seen.clear()
        self.forked_at = len(self.server.taken), len(self.other_server.taken)
        self.temper.plugin = "fine"
        self.pid += 1
        home._leave_all()  # noqa: SLF001 - what a fork calls
        self.run(self.track("d"))
        if self.shelf is not None:
            self.shelf = self.shelf.child
        for each in inherited:
            result = each.delivery.result
            assert result is not None, "an inherited handle stays open"
            assert each.result is not None or result.reason is DropReason.FORK, result

    # What must hold ----------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        """Check everything, after each step."""
        if self.client is None:
            return
        with self.in_process():
            self.every_account_adds_up()
            self.nothing_happens_twice()
            self.a_result_is_final()
            self.no_user_is_overtaken_by_itself()
            self.nothing_storms()
            self.every_wait_ends()
            self.the_host_hears_of_no_error()
            self.a_child_sends_nothing_of_its_parents()
            self.after_a_shutdown_nothing_is_left()

    def every_account_adds_up(self) -> None:
        """Every accepted event is somewhere, once, with each destination."""
        assert self.client is not None
        assert self.client is not None
        stats = self.client.stats
        for one in (stats, *stats.destinations.values()):
            assert one.balanced, one
            assert min(one.pending, one.held, one.queue_bytes, one.retries) >= 0, one
            assert min(one.delivered, one.rejected, one.dropped, one.stored) >= 0, one
            assert one.held <= one.pending, one
            assert one.dropped == sum(one.dropped_by_reason.values()), one
            assert DropReason.INTERNAL not in one.dropped_by_reason, one
            assert DropReason.EXPIRED not in one.dropped_by_reason, one
        assert stats.accepted == len(self.accepted), stats
        assert not self.handler.unbalanced
        if self.shelf is None:
            assert stats.pending <= CAPACITY
            assert bool(stats.queue_bytes) == bool(stats.pending)
        if self.retries is None and self.moods <= BUSY:
            assert DropReason.RETRIES not in stats.dropped_by_reason, stats

    def nothing_happens_twice(self) -> None:
        """One callback per event, and a second copy only where an answer was lost."""
        calls = Counter(result.insert_id for result in self.results)
        assert not calls or max(calls.values()) == 1, calls
        for server in (self.server, self.other_server):
            for name, times in Counter(name for _, name in server.taken).items():
                assert times <= 1 + server.unanswered[name], name
        if self.plain.seen and not self.killed:
            assert max(self.plain.seen.values()) == 1

    def a_result_is_final(self) -> None:
        """What a handle said once it says for ever, and the callback says the same."""
        told = {result.insert_id: result for result in self.results}
        for one in self.accepted:
            result = one.delivery.result
            if one.result is None:
                one.result = result
            assert result == one.result or _alike(result, one.result), result
            if one.name in told:
                assert _alike(told[one.name], result), (told[one.name], result)

    def no_user_is_overtaken_by_itself(self) -> None:
        """Events of one user reach the server in the order of acceptance."""
        if self.append_failed and (self.fetch_failed or self.closing is not None):
            # What is in memory only waits for what is unread, unless it would be lost.
            return
        first = list(dict.fromkeys(self.server.taken))
        reached = {name for _, name in first}
        for user in USERS:
            own = [one.name for one in self.accepted if one.user == user]
            known = set(own)
            arrived = [n for u, n in first if u == user and n in known]
            assert arrived == [name for name in own if name in reached]

    def nothing_storms(self) -> None:
        """Requests are bounded by events and by time, whatever the server says."""
        bound = 10 + 4 * self.tracked + 20 * self.clock.now()
        assert len(self.network.requests) <= bound
        assert len(self.other_network.requests) <= bound

    def every_wait_ends(self) -> None:
        """Who waits with a deadline has gone on by then."""
        for one in self.waiting:
            late = self.clock.now() > one.until and not one.task.done()
            assert not late, f"{one.what} is late"
            if one.task.done() and not one.task.cancelled():
                error = one.task.exception()
                assert error is None, f"{one.what} raised {error!r}"
        self.waiting = [
            one for one in self.waiting if not one.task.done() or one is self.closing
        ]

    def the_host_hears_of_no_error(self) -> None:
        """Nothing of ours ends in the loop's exception handler."""
        assert self.loop.complaints == [], self.loop.complaints

    def a_child_sends_nothing_of_its_parents(self) -> None:
        """What the parent accepted is the parent's."""
        if self.forked_at is None:
            return
        here, there = self.forked_at
        for _, name in (*self.server.taken[here:], *self.other_server.taken[there:]):
            assert name not in self.inherited
        for result in self.results:
            assert result.insert_id not in self.inherited

    def after_a_shutdown_nothing_is_left(self) -> None:
        """All is decided, everybody has been told so, and no task of ours runs."""
        closing = self.closing
        if closing is None or not closing.task.done() or closing.task.cancelled():
            return
        self.settled()

    def settled(self) -> None:
        """Check that nothing and nobody waits any more, and who was told what."""
        assert self.client is not None
        stats = self.client.stats
        for one in (stats, *stats.destinations.values()):
            assert (one.pending, one.held, one.queue_bytes) == (0, 0, 0), one
        taken = {name for _, name in self.server.taken}
        rows = {} if self.shelf is None else self.shelf.rows
        kept = {record.insert_id for record in rows.values()}
        for each in self.accepted:
            result = each.delivery.result
            assert result is not None, each.name
            assert each.name in taken or not result.ok, each.name
            if result.status is DeliveryStatus.STORED:
                assert each.name in kept, f"{each.name} is not in the storage"

    # The end -----------------------------------------------------------------

    def teardown(self) -> None:
        """Once the world is well everything settles, and everybody goes home."""
        if self.client is None:
            return
        try:
            with self.in_process():
                self.end_well()
        finally:
            self.client = None
            self.abandon()

    def end_well(self) -> None:
        """Let the world be well, and then shut down."""
        assert self.client is not None
        was_open = self.closing is None
        self.temper.calm()
        self.server.mood = self.other_server.mood = "well"
        if self.shelf is not None:
            self.shelf.faults.clear()
        self.run(self.work_storage())
        self.network.release()
        self.other_network.release()
        self.run(self.clock.advance(30.0))
        for _ in range(20):
            if not self.pending:
                break
            self.run(self.clock.advance(400.0))
            self.every_wait_ends()
        assert not self.pending, self.client.stats
        if was_open:
            self.settled()
        begun = self.start(self.client.shutdown(1.0), "the last shutdown", 1.0)
        self.run(self.clock.advance(10.0))
        assert begun.task.done()
        self.promises_hold()
        self.settled()
        stuck = [one.what for one in self.waiting if not one.task.done()]
        assert stuck == [], stuck
        left = [task.get_name() for task in self.loop.running_tasks()]
        assert left == [], left
        if was_open:
            self.everybody_was_told()
            if self.shelf is not None:
                assert self.shelf.closed
                assert self.shelf.rows == {}

    @property
    def pending(self) -> int:
        """Undecided events, whoever has them."""
        assert self.client is not None
        stats = self.client.stats
        return stats.pending + sum(o.pending for o in stats.destinations.values())

    def everybody_was_told(self) -> None:
        """Check that the callback heard of each event."""
        told = {result.insert_id for result in self.results}
        for one in self.accepted:
            result = one.delivery.result
            assert result is not None
            # What synchronous code settles at the door, or makes us shed, may go
            # untold where the callback's queue is full.
            shed = self.bursts and result.reason is DropReason.OVERFLOW
            untold = shed or (one.at_once and one.delivery.at_door)
            assert one.name in told or untold, (one.name, result)

    def abandon(self) -> None:
        """Leave no task behind, whatever has failed."""
        for task in [*self.loop.tasks]:
            task.cancel()
        try:
            self.run(self.clock.advance(30.0))
        finally:
            self.loop.close()


BUSY: Final = {"well", "503", "503 with Retry-After", "gone", "429", "429 now"}


def not_forked(result: DeliveryResult) -> bool:
    """Say whether a verb of user code is more than the copy of one of the parent's."""
    return result.reason is not DropReason.FORK


def _alike(one: DeliveryResult | None, other: DeliveryResult | None) -> bool:
    """Say whether two results tell the same."""
    if one is None or other is None:
        return one is other
    return (one.status, one.code, one.reason) == (
        other.status,
        other.code,
        other.reason,
    )


TestClient = ClientMachine.TestCase
TestClient.settings = settings(
    max_examples=examples(60),
    stateful_step_count=40,
    deadline=None,
)
