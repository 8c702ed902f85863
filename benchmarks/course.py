"""The course every SDK runs: the same events, the same clocks, one line of JSON.

Only the standard library is imported, because each SDK runs it in an environment of its
own. A script in ``peers/`` describes its SDK as a `Peer` and calls `run`.
"""

import argparse
import array
import asyncio
import gc
import json
import os
import random
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["EVENT_TYPE", "Course", "Peer", "properties", "run"]

EVENT_TYPE = "Checkout Completed"
# An asyncio service comes back to its loop all the time: so do asyncio clients here.
EVENTS_PER_TURN = 100
EXTRA_MODES = ("forms", "backlog", "busy")
TICK = 0.002
SETTLE = 0.3
FIRST_WARM_UP = 3_000_000


class Peer(Protocol):
    """One SDK in one configuration, ready to send to a URL."""

    asynchronous: bool
    """True: ``track`` and ``finish`` are coroutine functions."""

    def track(self, user: str, values: dict[str, Any]) -> Any:
        """Hand over one event of a user, with its properties."""

    def finish(self) -> Any:
        """Return when everything handed over was sent or given up."""


class Course:
    """What the command line asks for."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("mode", choices=["burst", "memory", "paced", *EXTRA_MODES])
        parser.add_argument("--url", required=True)
        parser.add_argument("--tuning", default="default")
        parser.add_argument("--events", type=int, default=50_000)
        parser.add_argument("--users", type=int, default=1_000)
        parser.add_argument("--rate", type=int, default=2_000)
        parser.add_argument("--seconds", type=float, default=6.0)
        parser.add_argument("--padding", type=int, default=0)
        parser.add_argument("--warmup", type=int, default=0)
        parser.add_argument("--profile", default="")
        given = parser.parse_args()
        self.mode: str = given.mode
        self.url: str = given.url
        self.tuning: str = given.tuning
        self.events: int = given.events
        self.rate: int = given.rate
        self.seconds: float = given.seconds
        self.profile: str = given.profile
        self.warmup: int = given.warmup
        self.padding: int = given.padding
        self._paddings = _texts(given.padding) if given.padding else []
        self.users = [f"user-{n:06d}" for n in range(given.users)]

    def values(self, number: int) -> dict[str, Any]:
        """Make the properties of an event, padded where large events are wanted."""
        values = properties(number)
        if self._paddings:
            values["padding"] = self._paddings[number % len(self._paddings)]
        return values

    @property
    def busy(self) -> bool:
        """True where the server is busy, and nobody may wait long for company."""
        return self.mode == "busy"

    @property
    def roomy(self) -> bool:
        """True where queues must hold everything, whatever the tuning says."""
        return self.mode in {"memory", "backlog"}


def properties(number: int) -> dict[str, Any]:
    """Make the properties of an event: an int, a text, a float, a bool and a list."""
    return {
        "seq": f"~{number:08d}~",
        "quantity": number % 7,
        "price": 12.5 + number % 100,
        "member": number % 2 == 0,
        "tags": ["spring", "sale"],
    }


def _texts(length: int) -> list[str]:
    """Make texts that together exceed the window of gzip: no cheap repetition."""
    chance = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz   "
    return ["".join(chance.choices(letters, k=length)) for _ in range(128)]


def cpu_seconds() -> float:
    """Give the CPU time of this process so far, user and system, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(course: Course, make: Callable[[Course], Awaitable[Peer] | Peer]) -> None:
    """Run the course, print the figures as one line of JSON, and end the process."""
    asyncio.run(_report(course, make))


async def _report(
    course: Course, make: Callable[[Course], Awaitable[Peer] | Peer]
) -> None:
    print(json.dumps(await _run(course, make)), flush=True)
    # Some SDKs leave threads or requests behind that would wait for minutes.
    os._exit(0)


async def _run(
    course: Course, make: Callable[[Course], Awaitable[Peer] | Peer]
) -> dict[str, Any]:
    made = make(course)
    peer = await made if isinstance(made, Awaitable) else made
    gc.collect()
    if course.warmup:
        await _warm_up(course, peer)
    if course.mode == "forms":
        return await _forms(course, peer)
    if course.mode == "memory":
        return await _memory(course, peer)
    if course.mode == "paced":
        return await _paced(course, peer)
    if course.mode == "busy":
        return await _busy(course, peer)
    return await _burst(course, peer)


async def _forms(course: Course, peer: Any) -> dict[str, Any]:
    """Let a peer that has several ways to track compare them."""
    figures: dict[str, Any] = await peer.forms(course)
    return figures


async def _warm_up(course: Course, peer: Peer) -> None:
    """Open connections and fill caches, with events that are counted apart."""
    for number in range(FIRST_WARM_UP, FIRST_WARM_UP + course.warmup):
        handed = peer.track(course.users[0], properties(number))
        if peer.asynchronous:
            await handed
    if peer.asynchronous:
        await peer.finish()
    else:
        peer.finish()


# Burst ------------------------------------------------------------------------


async def _burst(course: Course, peer: Peer) -> dict[str, Any]:
    """Hand over everything as fast as it goes, then wait until it is sent."""
    laps = array.array("q", bytes(8 * course.events))
    drive = _drive_async if peer.asynchronous else _drive_blocking
    profiler = _profiler(course.profile)
    started, cpu = time.monotonic_ns(), cpu_seconds()
    await drive(course, peer, laps)
    handed_over = time.monotonic_ns()
    if peer.asynchronous:
        await peer.finish()
    else:
        peer.finish()
    cpu, ended = cpu_seconds() - cpu, time.monotonic_ns()
    if profiler is not None:
        profiler(course.profile)
    return {
        "started_ns": started,
        "handed_over_s": (handed_over - started) / 1e9,
        "flushed_s": (ended - started) / 1e9,
        "cpu_s": cpu,
        "track_us": percentiles(laps, 1e-3, (50, 99, 99.9, 100)),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


async def _drive_async(course: Course, peer: Peer, laps: "array.array[int]") -> None:
    clock, track, users = time.perf_counter_ns, peer.track, course.users
    yields = EVENTS_PER_TURN if course.mode == "burst" else course.events + 1
    for number in range(course.events):
        user, values = users[number % len(users)], properties(number)
        began = clock()
        await track(user, values)
        laps[number] = clock() - began
        if number % yields == yields - 1:
            await asyncio.sleep(0)


async def _drive_blocking(course: Course, peer: Peer, laps: "array.array[int]") -> None:
    clock, track, users = time.perf_counter_ns, peer.track, course.users
    for number in range(course.events):
        user, values = users[number % len(users)], properties(number)
        began = clock()
        track(user, values)
        laps[number] = clock() - began


# Memory -----------------------------------------------------------------------


async def _memory(course: Course, peer: Peer) -> dict[str, Any]:
    """Hand events over while the server is silent, and see what each one weighs."""
    laps = array.array("q", bytes(8 * course.events))
    drive = _drive_async if peer.asynchronous else _drive_blocking
    gc.collect()
    before = _rss_bytes()
    await drive(course, peer, laps)
    await asyncio.sleep(SETTLE)
    gc.collect()
    return {"bytes_per_event": (_rss_bytes() - before) / course.events}


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * resource.getpagesize()


# Paced ------------------------------------------------------------------------


async def _paced(course: Course, peer: Peer) -> dict[str, Any]:
    """Be an asyncio service with so many events a second; measure how late it gets."""
    late = array.array("q")
    stop = asyncio.Event()
    ticker = asyncio.create_task(_tick(late, stop))
    collections = _count_full_collections()
    await asyncio.sleep(SETTLE)
    del late[:]
    started, cpu = time.monotonic_ns(), cpu_seconds()
    number, total = 0, int(course.rate * course.seconds)
    while number < total:
        due = int((time.monotonic_ns() - started) * course.rate / 1e9)
        while number < min(due, total):
            user = course.users[number % len(course.users)]
            values = course.values(number)
            if peer.asynchronous:
                await peer.track(user, values)
            else:
                peer.track(user, values)
            number += 1
        await asyncio.sleep(0.001)
    cpu = cpu_seconds() - cpu
    stop.set()
    await ticker
    if peer.asynchronous:
        await peer.finish()
    else:
        await asyncio.to_thread(peer.finish)
    return {
        "started_ns": started,
        "cpu_s": cpu,
        "events": total,
        "lag_ms": percentiles(late, 1e-6, (50, 99, 100)),
        "full_collections": collections[0],
    }


async def _tick(late: "array.array[int]", stop: asyncio.Event) -> None:
    while not stop.is_set():
        due = time.perf_counter_ns() + int(TICK * 1e9)
        await asyncio.sleep(TICK)
        late.append(max(time.perf_counter_ns() - due, 0))


# Busy -------------------------------------------------------------------------


async def _busy(course: Course, peer: Peer) -> dict[str, Any]:
    """Offer so many events a second, say how many those were, and go on sending.

    Nobody flushes: some SDKs give up at a flush what they would send again by
    themselves. So the process lives until its standard input is closed.
    """
    number, started = 0, time.monotonic_ns()
    until = started + int(course.seconds * 1e9)
    while (now := time.monotonic_ns()) < until:
        due = int((now - started) * course.rate / 1e9)
        while number < due and time.monotonic_ns() < until:
            handed = peer.track(
                course.users[number % len(course.users)], properties(number)
            )
            if peer.asynchronous:
                await handed
            number += 1
        await asyncio.sleep(0.001)
    offered = {"events": number, "ended_ns": time.monotonic_ns()}
    print(json.dumps(offered), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    return offered


def _count_full_collections() -> list[int]:
    counted = [0]

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            counted[0] += 1

    gc.callbacks.append(count)
    return counted


def percentiles(
    values: "array.array[int]", scale: float, wanted: tuple[float, ...]
) -> dict[str, float]:
    """Give percentiles by name, scaled; 100 is the largest value."""
    ordered = sorted(values)
    last = len(ordered) - 1
    names = {p: "max" if p == 100 else f"p{p:g}" for p in wanted}
    return {names[p]: ordered[round(last * p / 100)] * scale for p in wanted}


def _profiler(path: str) -> Callable[[str], None] | None:
    """Start pyinstrument where a profile is wanted; returns what writes it."""
    if not path:
        return None
    import pyinstrument  # noqa: PLC0415 - only in the environment that profiles

    profiler = pyinstrument.Profiler(interval=0.0005, async_mode="disabled")
    profiler.start()

    def finish(target: str) -> None:
        profiler.stop()
        with open(target, "w", encoding="utf-8") as page:  # noqa: PTH123
            page.write(profiler.output_html())

    return finish
