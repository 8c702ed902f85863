"""What a person sees of the demo while it runs: its acts, with counters that live."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.text import Text

__all__ = ["Counters", "Show", "Stage"]

Counters = Callable[[], Mapping[str, int]]
"""Reads counters by the words that stand behind their numbers."""

_REFRESH_SECONDS: Final = 0.1


class Stage:
    """Where the demo plays; on this one nobody looks."""

    def act(self, title: str) -> None:
        """Begin the next act."""

    def watch(self, counters: Counters) -> None:
        """Say what is counted from here on."""

    def step(self) -> None:
        """Note that one purchase is through."""

    @contextlib.asynccontextmanager
    async def lit(self) -> AsyncIterator[None]:
        """Show how the counters move while the block runs."""
        yield


class Show(Stage):
    """Prints the acts; on a terminal the counters move, elsewhere they are lines.

    Args:
        console: where to.
        total: how many purchases there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._acts = 0
        self._counters: Counters | None = None
        self._bar = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            auto_refresh=False,
            console=console,
        )
        self._task = self._bar.add_task("purchases", total=total)

    def act(self, title: str) -> None:
        """Print how the act before ended, and the title of the next."""
        self._sum_up()
        self._acts += 1
        self._print(Text.assemble((f"Act {self._acts}: ", "bold"), title))

    def watch(self, counters: Counters) -> None:
        """Show these counters, and how they stand at the end of each act."""
        self._counters = counters

    def step(self) -> None:
        """Move the bar."""
        self._bar.advance(self._task)

    @contextlib.asynccontextmanager
    async def lit(self) -> AsyncIterator[None]:
        """Refresh the counters on a terminal while the block runs."""
        if not self._console.is_terminal:
            yield
            self._sum_up()
            return
        live = Live(
            get_renderable=self._picture,
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        with live:
            moving = asyncio.create_task(_move(live))
            try:
                yield
            finally:
                moving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await moving
        self._sum_up()

    def _picture(self) -> Group:
        return Group(self._bar.get_renderable(), Text(self._counted(), "cyan"))

    def _counted(self) -> str:
        counters = {} if self._counters is None else self._counters()
        return ", ".join(f"{count:,} {words}" for words, count in counters.items())

    def _sum_up(self) -> None:
        counted = self._counted()
        if counted:
            self._print(Text(f"  {counted}", "cyan"))
        self._counters = None

    def _print(self, line: Text) -> None:
        self._console.print(line, highlight=False)


async def _move(live: Live) -> None:
    while True:
        live.refresh()
        await asyncio.sleep(_REFRESH_SECONDS)
