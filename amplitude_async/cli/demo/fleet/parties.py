"""Producers and relays in processes of their own, and what they said."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

__all__ = ["KEY", "Party", "ProducerParty", "RelayParty"]

KEY: Final = "demo-key-0123456789abcdef"
END_LIMIT: Final = 40.0
LINE_LIMIT: Final = 1024 * 1024


class Party:
    """A process of the fleet.

    Args:
        log: where it writes what goes wrong.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def _start(self, *command: str, env: dict[str, str] | None = None) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_LIMIT,
                env={**os.environ, **(env or {})},
            )

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process, which was started."""
        if self._process is None:
            raise RuntimeError("start it first")
        return self._process

    @property
    def runs(self) -> bool:
        """True until it has ended."""
        return self._process is not None and self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, where it still runs."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it and wait for that; returns how many seconds it took."""
        began = time.monotonic()
        self.send(number)
        try:
            async with asyncio.timeout(END_LIMIT):
                await self.process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.process.wait()
        return time.monotonic() - began

    @property
    def words(self) -> str:
        """What it wrote of what went wrong."""
        with contextlib.suppress(OSError):
            return self._log.read_text("utf-8", "replace")
        return ""


class RelayParty(Party):
    """``amplitude-async relay run``."""

    async def start(
        self,
        *,
        address: str,
        project: str,
        server_url: str,
        lease: float,
        options: dict[str, str] | None = None,
    ) -> None:
        """Start it; it delivers once it has a partition."""
        await self._start(
            *("-m", "amplitude_async", "relay", "run"),
            *("--log", address, "--project", project, "--lease", str(lease)),
            env={
                "AMPLITUDE_API_KEY": KEY,
                "AMPLITUDE_SERVER_URL": server_url,
                **(options or {}),
            },
        )

    async def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it; what it prints is of no interest here."""
        reading = asyncio.ensure_future(self.process.stdout.read())  # type: ignore[union-attr]
        try:
            return await super().end(number)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                reading.cancel()
                await reading


class ProducerParty(Party):
    """Tracks, and says of which events the log has confirmed that it has them.

    Args:
        name: begins the ids of its users.
        log: where it writes what goes wrong.
    """

    def __init__(self, name: str, log: Path) -> None:
        super().__init__(log)
        self.name = name
        self.confirmed: dict[str, tuple[str, int]] = {}
        """User and number of each confirmed event, by its insert id."""
        self.account = ""
        """Its last line; empty where it was killed."""
        self._reading: asyncio.Task[None] | None = None

    async def start(
        self,
        *,
        address: str,
        project: str,
        users: int,
        confirm: float,
        spool: Path | None = None,
    ) -> None:
        """Start it; its verbs wait so many seconds for the log."""
        spooled = () if spool is None else ("--spool", str(spool))
        await self._start(
            *("-m", "amplitude_async.cli.demo.fleet.producer"),
            *("--log", address, "--project", project, "--name", self.name),
            *("--users", str(users), "--confirm-timeout", str(confirm)),
            *spooled,
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        stream = self.process.stdout
        if stream is None:
            return
        async for raw in stream:
            words = raw.decode().split()
            if len(words) == 3 and raw.endswith(b"\n"):
                self.confirmed[words[0]] = words[1], int(words[2])
            elif words and words[0] in {"balanced", "unbalanced"}:
                self.account = raw.decode().strip()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it, and read all that it said."""
        took = await super().end(number)
        if self._reading is not None:
            await self._reading
        return took
