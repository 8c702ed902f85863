"""The demo's web service as a child process that can be killed and started again."""

import asyncio
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from amplitude_async import Stats
from amplitude_async.amplitude.config import ConfigFields

__all__ = ["ServiceProcess", "ServiceProcessError"]

# By name, since it runs in an interpreter of its own.
_MODULE = "amplitude_async.cli.demo.crash_service"
_TIMEOUT = 60.0


class ServiceProcessError(Exception):
    """The service has ended too soon; its own words are on standard error."""


class ServiceProcess:
    """Runs the service; use it as ``async with``, which leaves no process behind.

    Args:
        spool: the directory its events survive in.
        options: options of its client, as far as JSON can say them.
    """

    def __init__(self, spool: Path, options: ConfigFields) -> None:
        self._arguments = (str(spool), json.dumps(options))
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""
        self._up = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start the service."""
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill the service, where it was not stopped."""
        await self.kill()

    async def start(self) -> None:
        """Start the service and wait until it listens."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, *self._arguments, stdin=pipe, stdout=pipe
        )
        self._url = (await self._next_line())["url"]
        self._up.set()

    async def kill(self) -> None:
        """Take its life at once (SIGKILL): it can put nothing in order."""
        process, self._process = self._process, None
        self._up.clear()
        if process is not None:
            if process.returncode is None:
                process.kill()
            # Reads what is left as well, which closes the pipes.
            await process.communicate()

    async def address(self) -> str:
        """Wait until the service is up; return where purchases are posted."""
        await self._up.wait()
        return self._url

    async def stop(self) -> Stats:
        """Let the service end by itself; returns its client's account."""
        assert self._process is not None  # noqa: S101 - between start and kill
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._up.clear()
        self._process.stdin.close()
        account = await self._next_line()
        await self._process.wait()
        return Stats(**account)

    async def _next_line(self) -> dict[str, Any]:
        process = self._process
        assert process is not None  # noqa: S101 - between start and kill
        assert process.stdout is not None  # noqa: S101 - it was asked for
        async with asyncio.timeout(_TIMEOUT):
            line = await process.stdout.readline()
            if line:
                return dict(json.loads(line))
            code = await process.wait()
        msg = f"the service process ended with exit code {code}: see what it printed"
        raise ServiceProcessError(msg)
