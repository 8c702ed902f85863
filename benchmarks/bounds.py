"""How long one step of ours holds the event loop where everything is full.

Capacity 20,000 with as many identities and 2,000 callers at once: every public verb,
every overflow policy, and what a server can do to us. No server takes part, so that
nothing but ours is measured: answers are written down here.

What is timed is each single step that the loop runs, by standing around
``asyncio.Handle._run``: no thread, no task, and the guilty one has a name. A heartbeat
between turns would blame us for the 2,000 callers whose own steps make up a turn; it
is shown beside it. Collections of garbage are taken out of a step and shown apart,
since how long they take is decided by the heap of the host.

The machine's own noise is measured in the same run, between the scenes: a task that
computes the same for 5 ms again and again, and how much its longest step exceeds the
usual one. A scene is run several times and the least of its longest steps counts: what
is in the code is there every time.
"""

import argparse
import asyncio
import gc
import itertools
import json
import logging
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import aiohttp

from amplitude_async import (
    Amplitude,
    DestinationPlugin,
    EnrichmentPlugin,
    Event,
    Identify,
    Overflow,
    QueueFullError,
    Revenue,
)
from amplitude_async.delivery.endpoint import Response
from amplitude_async.delivery.transport import Transport

__all__ = ["Hold", "Watch", "lines", "main", "measure"]

AIM: Final = 0.010
CAPACITY: Final = 20_000
CALLERS: Final = 2_000
MANY_CALLERS: Final = 5_000
NOISE_STEP: Final = 0.005
SLICE: Final = 50
USERS: Final = [f"user-{number:06d}" for number in range(CAPACITY)]


@dataclass
class Hold:
    """The longest that the loop stood in one scene."""

    scene: str
    step: float = 0.0
    """Seconds of the longest step, without collections of garbage."""
    who: str = ""
    turn: float = 0.0
    """Seconds of the longest turn: every step that was ready at the time."""
    garbage: float = 0.0
    """Seconds of the longest collection of garbage."""


class Watch:
    """Times every step of the event loop."""

    def __init__(self, scene: str) -> None:
        self.hold = Hold(scene)
        self._collecting = 0.0
        self._collected = 0.0
        self._turn_began = 0.0
        self._beating = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch for as long as the block takes."""
        untimed = asyncio.Handle._run  # noqa: SLF001 - the one place to stand

        def timed(handle: asyncio.Handle) -> None:
            self._collected = 0.0
            began = time.perf_counter()
            untimed(handle)
            took = time.perf_counter() - began - self._collected
            if took > self.hold.step:
                self.hold.step, self.hold.who = took, _name_of(handle)

        gc.callbacks.append(self._note_garbage)
        asyncio.Handle._run = timed  # type: ignore[assignment,method-assign] # noqa: SLF001
        self._beating = True
        asyncio.get_running_loop().call_soon(self._beat)
        try:
            yield
        finally:
            self._beating = False
            asyncio.Handle._run = untimed  # type: ignore[method-assign] # noqa: SLF001
            gc.callbacks.remove(self._note_garbage)

    def _beat(self) -> None:
        now = time.perf_counter()
        if self._turn_began:
            self.hold.turn = max(self.hold.turn, now - self._turn_began)
        self._turn_began = now
        if self._beating:
            asyncio.get_running_loop().call_soon(self._beat)

    def _note_garbage(self, phase: str, _info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._collecting = now
        else:
            took = now - self._collecting
            self._collected += took
            self.hold.garbage = max(self.hold.garbage, took)


def _name_of(handle: asyncio.Handle) -> str:
    call = handle._callback  # type: ignore[attr-defined] # noqa: SLF001
    owner = getattr(call, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return owner.get_name().removeprefix("amplitude_async ")
    return str(getattr(call, "__qualname__", call))


# The other end ----------------------------------------------------------------


def _well(_body: bytes) -> Response:
    return Response(200)


def _down(_body: bytes) -> Response:
    return Response(503)


def _broken(_body: bytes) -> Response:
    return Response(500)


def _refusing(_body: bytes) -> Response:
    return Response(401)


def _throttling(body: bytes) -> Response:
    listed = list(range(body.count(b'"insert_id"')))
    return Response(429, body=json.dumps({"throttled_events": listed}).encode())


def _naming(body: bytes) -> Response:
    listed = list(range(body.count(b'"insert_id"')))
    answer = {"error": "no", "events_with_invalid_fields": {"time": listed}}
    return Response(400, body=json.dumps(answer).encode())


def _too_large(body: bytes) -> Response:
    return Response(413 if len(body) > 100_000 else 200)


class Wire:
    """A network that answers as it is told, or not at all."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], Response] = _well
        self._open = asyncio.Event()
        self._open.set()

    def hang(self) -> None:
        """Answer nothing."""
        self._open.clear()

    def release(self, answer: Callable[[bytes], Response] = _well) -> None:
        """Answer what hangs, and all that follows."""
        self.answer = answer
        self._open.set()

    async def send(self, _url: str, body: bytes, *_: object) -> Response:
        """Give the answer of the day."""
        await asyncio.sleep(0)
        await self._open.wait()
        return self.answer(body)

    async def close(self) -> None:
        """Nothing to close."""

    def abandon(self) -> None:
        """Nothing to leave behind."""


class Offline(Amplitude):
    """A client on a wire of ours."""

    wire: Wire

    def _make_transport(self, session: aiohttp.ClientSession | None) -> Transport:
        del session
        self.wire = Wire()
        return self.wire


class Sink(DestinationPlugin):
    """A plain destination that takes its time, or never ends."""

    name = "sink"

    def __init__(self, *, stuck: bool = True) -> None:
        self._stuck = stuck

    async def execute(self, event: Any) -> None:
        """Take an event."""
        del event
        await asyncio.sleep(60.0 if self._stuck else 0.0)


class Passing(EnrichmentPlugin):
    """Changes nothing."""

    name = "passing"

    def execute(self, event: Event) -> Event:
        """Let an event through."""
        return event


# What is done at the bounds ---------------------------------------------------


@asynccontextmanager
async def _client(**options: Any) -> AsyncIterator[Offline]:
    """Start a client that is quick to try again, and end it."""
    given = {
        "max_storage_capacity": CAPACITY,
        "retry_base_interval": 0.01,
        "retry_max_interval": 0.05,
        "retry_throttled_interval": 0.2,
        "overflow_timeout": 0.3,
        **options,
    }
    client = Offline("bounds", **given)
    await client.start()
    try:
        yield client
    finally:
        client.wire.release()
        await client.shutdown(0.3)


async def _track(client: Offline, number: int) -> Any:
    user = USERS[number % CAPACITY]
    properties = {"number": number, "kind": "checkout"}
    return await client.track("Bounds", user_id=user, event_properties=properties)


async def _fill(client: Offline) -> None:
    """Fill the queue behind a server that does not answer."""
    client.wire.hang()
    for number in range(CAPACITY):
        await _track(client, number)
        if number % SLICE == 0:
            await asyncio.sleep(0)


async def _crowd(callers: int, call: Callable[[int], Awaitable[object]]) -> None:
    """Let so many tasks begin at the same moment, and wait for all of them."""
    gate, over = asyncio.Event(), asyncio.Event()
    left = itertools.count(callers - 1, -1)

    async def caller(number: int) -> None:
        await gate.wait()
        try:
            await call(number)
        except QueueFullError:
            pass
        finally:
            if not next(left):
                over.set()

    tasks = []
    for number in range(callers):
        tasks.append(asyncio.create_task(caller(number), name="a caller"))
        if number % SLICE == 0:
            await asyncio.sleep(0)
    gate.set()
    await over.wait()


async def _tracks(client: Offline, number: int, share: int = 10) -> None:
    for more in range(share):
        await _track(client, number * share + more)


async def _track_all() -> None:
    async with _client() as client:
        await _crowd(CALLERS, lambda number: _tracks(client, number))
        await client.flush()


async def _await_all() -> None:
    async with _client() as client:

        async def deliver(number: int) -> None:
            await (await _track(client, number))

        await _crowd(CALLERS, deliver)


async def _track_nowait() -> None:
    async with _client(callback=lambda _: None) as client:
        client.wire.hang()
        for number in range(2 * CAPACITY):
            client.track_nowait("Bounds", user_id=USERS[number % CAPACITY])
            if number % 10 == 0:
                await asyncio.sleep(0)


async def _other_verbs() -> None:
    async with _client() as client:

        async def call(number: int) -> None:
            user = USERS[number]
            await client.identify(Identify().set("a", number), user_id=user)
            await client.group_identify("org", user, Identify().set("a", number))
            await client.set_group("org", user, user_id=user)
            await client.revenue(Revenue(price=1.0), user_id=user)

        await _crowd(CALLERS, call)
        await client.flush()


async def _overflow(policy: Overflow, **options: Any) -> None:
    async with _client(overflow=policy, **options) as client:
        await _fill(client)
        await _crowd(CALLERS, lambda number: _tracks(client, number))


async def _flush(callers: int) -> None:
    async with _client() as client:
        await _fill(client)
        asyncio.get_running_loop().call_later(0.2, client.wire.release)
        await _crowd(callers, lambda _: client.flush(5.0))
        await _crowd(callers, lambda _: client.flush(5.0))


async def _flush_in_vain() -> None:
    async with _client() as client:
        await _fill(client)
        await _crowd(MANY_CALLERS, lambda _: client.flush(0.2))


async def _purge(user: str | None, **options: Any) -> None:
    async with _client(**options) as client:
        await _fill(client)
        await client.purge(user)


async def _purge_parked() -> None:
    async with _client() as client:
        client.wire.hang()
        for number in range(CAPACITY):
            await _track(client, number % 500)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        await client.purge()


async def _shutdown(**options: Any) -> None:
    async with _client(**options) as client:
        await _fill(client)
        await client.shutdown(0.1)


async def _read() -> None:
    async with _client() as client:
        await _fill(client)
        for _ in range(CALLERS):
            await asyncio.sleep(0)
            _ = (client.stats, repr(client), client.config, client.opt_out)
        client.opt_out = True
        client.opt_out = False


async def _plugins() -> None:
    async with _client() as client:
        await _fill(client)
        for _ in range(100):
            await client.add(Passing())
            await client.remove("passing")


async def _plain(end: Callable[[Offline], Awaitable[object]]) -> None:
    async with _client(shutdown_timeout=0.1) as client:
        await client.add(Sink())
        await _fill(client)
        await end(client)


async def _plain_at_work() -> None:
    async with _client() as client:
        await client.add(Sink(stuck=False))
        await _crowd(CALLERS, lambda number: _tracks(client, number))
        await client.flush()


async def _answers(answer: Callable[[bytes], Response], seconds: float = 0.5) -> None:
    async with _client() as client:
        await _fill(client)
        client.wire.release(answer)
        await asyncio.sleep(seconds)


async def _outage(answer: Callable[[bytes], Response], **options: Any) -> None:
    async with _client(callback=lambda _: None, **options) as client:
        await _fill(client)
        client.wire.release(answer)
        await asyncio.sleep(0.5)
        client.wire.release()
        await client.flush(5.0)


async def _throttles(end: Callable[[Offline], Awaitable[object]]) -> None:
    async with _client(retry_throttled_interval=1.5) as client:
        await _fill(client)
        client.wire.release(_throttling)
        await asyncio.sleep(1.0)
        client.wire.release()
        await end(client)


async def _expire() -> None:
    async with _client(max_event_age=0.5) as client:
        await _fill(client)
        await asyncio.sleep(0.7)
        client.wire.release()
        await client.flush(5.0)


FORK: Final = "fork, first verb of the child"
Scene = Callable[[], Coroutine[Any, Any, None]]

SCENES: Final[dict[str, Scene]] = {
    "track, 2,000 callers": _track_all,
    "track and await the result": _await_all,
    "track_nowait, 40,000, callback": _track_nowait,
    "identify, groups, revenue": _other_verbs,
    **{f"full queue, {policy.name}": partial(_overflow, policy) for policy in Overflow},
    "full queue, DROP_OLDEST, callback": partial(
        _overflow, Overflow.DROP_OLDEST, callback=lambda _: None
    ),
    "flush, 2,000 handlers": partial(_flush, CALLERS),
    "flush, 5,000 handlers": partial(_flush, MANY_CALLERS),
    "flush, 5,000 in vain": _flush_in_vain,
    "purge(), 20,000": partial(_purge, None),
    "purge(), callback": partial(_purge, None, callback=lambda _: None),
    "purge(user)": partial(_purge, USERS[-1]),
    "purge(), parked": _purge_parked,
    "shutdown, 20,000": _shutdown,
    "shutdown, callback": partial(_shutdown, callback=lambda _: None),
    "stats, repr, config, opt_out": _read,
    "add and remove a plugin": _plugins,
    "plain destination: purge()": partial(_plain, lambda client: client.purge()),
    "plain destination: purge(user)": partial(
        _plain, lambda client: client.purge(USERS[-1])
    ),
    "plain destination: shutdown": partial(_plain, lambda client: client.shutdown(0.1)),
    "plain destination: remove": partial(_plain, lambda client: client.remove("sink")),
    "plain destination at work": _plain_at_work,
    "all throttled, then well": partial(_throttles, lambda client: client.flush(3.0)),
    "all throttled, purge()": partial(_throttles, lambda client: client.purge()),
    "all throttled, shutdown": partial(_throttles, lambda client: client.shutdown(0.1)),
    "refused (401)": partial(_answers, _refusing),
    "every event named (400)": partial(_answers, _naming),
    "too large (413)": partial(_answers, _too_large),
    "outage (503), then well": partial(_outage, _down),
    "outage (500), then well": partial(_outage, _broken),
    "outage, retries limited": partial(_outage, _broken, flush_max_retries=1),
    "all expire": _expire,
}


# Measuring and telling --------------------------------------------------------


async def _compute(steps: int) -> list[float]:
    """Do the same again and again; returns how long each time took."""
    took: list[float] = []
    size = 1_000
    while True:  # find out how much work takes as long as a step may
        began = time.perf_counter()
        sum(range(size))
        if time.perf_counter() - began > NOISE_STEP:
            break
        size *= 2
    for _ in range(steps):
        began = time.perf_counter()
        sum(range(size))
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    return took


def _noise(steps: int) -> float:
    """Say how much longer a step took at worst than it usually does."""
    took = asyncio.run(_compute(steps))
    return max(took) - statistics.median(took)


def _play(name: str, scene: Scene) -> Hold:
    """Run a scene in a loop of its own."""
    watch = Watch(name)

    async def watched() -> None:
        with watch.on():
            await asyncio.sleep(0)  # the step that began the watch is not timed
            await scene()

    gc.collect()
    asyncio.run(watched())
    return watch.hold


def _fork(name: str) -> Hold:
    """Watch a child's first verb, with all there that its parent had accepted."""
    loop = asyncio.new_event_loop()
    client = Offline("bounds", max_storage_capacity=CAPACITY)
    loop.run_until_complete(_fill(client))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            hold = _play(name, lambda: _track(client, 0))
            os.write(writer, json.dumps(asdict(hold)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        hold = Hold(**json.load(pipe))
    os.waitpid(child, 0)
    client.wire.release()
    loop.run_until_complete(client.shutdown(0.3))
    loop.close()
    return hold


def measure(only: str, rounds: int) -> tuple[list[Hold], float]:
    """Run the scenes; returns the least hold of each, and the machine's noise."""
    best: dict[str, Hold] = {}
    noises: list[float] = []
    for _ in range(rounds):
        for name in [*SCENES, FORK]:
            if only in name:
                noises.append(_noise(20))
                hold = _fork(name) if name == FORK else _play(name, SCENES[name])
                best[name] = min(best.get(name, hold), hold, key=lambda h: h.step)
    return list(best.values()), sorted(noises)[len(noises) * 9 // 10]


def lines(holds: list[Hold], noise: float) -> Iterator[str]:
    """Write the table."""
    width = max(len(hold.scene) for hold in holds)
    yield f"Longest step of the event loop at the bounds; noise {noise * 1e3:.1f} ms"
    yield f"{'':{width}}   step ms  x noise   turn ms  garbage ms"
    for hold in sorted(holds, key=lambda hold: -hold.step):
        over = "" if hold.step <= AIM + noise else f"  over: {hold.who}"
        yield (
            f"{hold.scene:{width}}  {hold.step * 1e3:8.1f} "
            f"{hold.step / noise:8.1f}  {hold.turn * 1e3:8.1f}  "
            f"{hold.garbage * 1e3:10.1f}{over}"
        )


def main() -> None:
    """Measure, and print the table or the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--only", default="", help="scenes whose name has this")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    logging.getLogger("amplitude_async").setLevel(logging.CRITICAL)
    holds, noise = measure(given.only, 1 if given.quick else given.rounds)
    if given.json:
        print(json.dumps({"noise": noise, "holds": [asdict(hold) for hold in holds]}))
        return
    print("\n".join(lines(holds, noise)))


if __name__ == "__main__":
    main()
