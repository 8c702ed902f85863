"""The demo with a crash: the service is killed half-way, and nothing is lost."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from amplitude_async.cli.demo.chaos import CHAOS_OPTIONS, chaos_faults
from amplitude_async.cli.demo.purchases import Purchase
from amplitude_async.cli.demo.replay import Replay, replay_stubbornly
from amplitude_async.cli.demo.report import Crash, Report
from amplitude_async.cli.demo.run import demo_options
from amplitude_async.cli.demo.service_process import ServiceProcess
from amplitude_async.cli.demo.totals import Accounts
from amplitude_async.emulator import Emulator

__all__ = ["run_crash_demo"]


async def run_crash_demo(
    purchases: Sequence[Purchase],
    spool: Path,
    advance: Callable[[], None] = lambda: None,
    *,
    chaos: bool = False,
) -> Report:
    """Replay the purchases, and kill the service half-way with SIGKILL.

    Args:
        purchases: the log.
        spool: an empty directory, for events to survive in.
        advance: called after each purchase that is through.
        chaos: let the server fail as well, in every way it can be lived with.

    Raises:
        ServiceProcessError: the service could not be started.
    """
    began = time.perf_counter()
    kill = _Kill(at=max(len(purchases) // 2, 1))

    def step() -> None:
        kill.count()
        advance()

    # Room for twice as many as expected, so that doubled events would be seen.
    async with Emulator(keep=2 * len(purchases)) as emulator:
        options = demo_options(emulator.httpapi_url)
        if chaos:
            emulator.faults.add(*chaos_faults(purchases))
            options.update(CHAOS_OPTIONS)
        async with ServiceProcess(spool, options) as service:
            post = replay_stubbornly(purchases, service.address, step)
            replayed = await _both(post, kill.commit(service))
            # The account of the second life alone: that of the first died with it.
            stats = await service.stop()
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

    def __init__(self, at: int) -> None:
        self.killed_at = 0
        """How many purchases were through."""
        self._at = at
        self._through = 0
        self._now = asyncio.Event()

    def count(self) -> None:
        """Note that a purchase is through."""
        self._through += 1
        if self._through == self._at:
            self._now.set()

    async def commit(self, service: ServiceProcess) -> None:
        """Kill at the right moment."""
        await self._now.wait()
        self.killed_at = self._through
        await service.kill()
        await service.start()
