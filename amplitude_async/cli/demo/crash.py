"""The demo with a crash: the service is killed half-way, and nothing is lost."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from amplitude_async.cli.demo.chaos import CHAOS_OPTIONS, chaos_faults
from amplitude_async.cli.demo.purchases import Purchase
from amplitude_async.cli.demo.replay import Replay, replay_stubbornly
from amplitude_async.cli.demo.report import Crash, Report
from amplitude_async.cli.demo.run import demo_options, running
from amplitude_async.cli.demo.service_process import ServiceProcess
from amplitude_async.cli.demo.stage import Stage
from amplitude_async.cli.demo.totals import Accounts
from amplitude_async.emulator import Emulator

__all__ = ["run_crash_demo"]


async def run_crash_demo(
    purchases: Sequence[Purchase],
    spool: Path,
    advance: Callable[[], None] = lambda: None,
    *,
    chaos: bool = False,
    emulator: Emulator | None = None,
    stage: Stage | None = None,
) -> Report:
    """Replay the purchases, and kill the service half-way with SIGKILL.

    Args:
        purchases: the log.
        spool: an empty directory, for events to survive in.
        advance: called after each purchase that is through.
        chaos: let the server fail as well, in every way it can be lived with.
        emulator: one that runs, and has room for the log; else one is started.
        stage: where a person looks on.

    Raises:
        ServiceProcessError: the service could not be started.
    """
    began = time.perf_counter()
    stage = stage or Stage()
    async with AsyncExitStack() as stack:
        emulator = await running(stack, emulator, purchases)
        options = demo_options(emulator.httpapi_url)
        if chaos:
            emulator.faults.add(*chaos_faults(purchases))
            options.update(CHAOS_OPTIONS)
        kill = _Kill(at=max(len(purchases) // 2, 1), stage=stage, emulator=emulator)

        def step() -> None:
            kill.count()
            advance()

        stage.act(f"a local Amplitude starts ({emulator.url}), and a web service.")
        async with stage.lit(), ServiceProcess(spool, options) as service:
            stage.act(
                f"{len(purchases):,} purchases are posted to the service, a process "
                "of its own with a spool."
            )
            stage.watch(kill.counters)
            post = replay_stubbornly(purchases, service.address, step)
            replayed = await _both(post, kill.commit(service))
            stage.act("the service stops, and delivers what still waits.")
            stage.watch(kill.counters)
            # The account of the second life alone: that of the first died with it.
            stats = await service.stop()
        stage.act("what arrived is compared with the log.")
        return Report(
            seconds=time.perf_counter() - began,
            replay=replayed,
            served=replayed.answered,
            stats=stats,
            log=Accounts.of_log(purchases),
            server=Accounts.of_events(emulator.events),
            trouble=emulator.stats if chaos else None,
            crash=Crash(kill.killed_at, emulator.stats.duplicates),
        )


async def _both(
    post: Coroutine[Any, Any, Replay], kill: Coroutine[Any, Any, None]
) -> Replay:
    try:
        async with asyncio.TaskGroup() as tasks:
            posted = tasks.create_task(post)
            tasks.create_task(kill)
    except ExceptionGroup as group:
        # The first has made an end of the other; no caller wants a group of one.
        raise group.exceptions[0] from None
    return posted.result()


class _Kill:
    """Waits for one purchase, kills the service and starts it again."""

    def __init__(self, at: int, stage: Stage, emulator: Emulator) -> None:
        self.killed_at = 0
        """How many purchases were through."""
        self._at = at
        self._through = 0
        self._stage = stage
        self._emulator = emulator
        self._now = asyncio.Event()

    def count(self) -> None:
        """Note that a purchase is through."""
        self._through += 1
        self._stage.step()
        if self._through == self._at:
            self._now.set()

    def counters(self) -> dict[str, int]:
        """Return what moves; the service's own account is in another process."""
        stats = self._emulator.stats
        return {
            "posted": self._through,
            "stored": stats.events_ingested,
            "duplicates": stats.duplicates,
            "requests": stats.requests,
        }

    async def commit(self, service: ServiceProcess) -> None:
        """Kill at the right moment."""
        await self._now.wait()
        self.killed_at = self._through
        await service.kill()
        self._stage.act(
            f"the service is killed at purchase {self.killed_at:,} (SIGKILL), and "
            "started again on the same spool."
        )
        self._stage.watch(self.counters)
        await service.start()
