"""A real log on servers of its own, as the measurements of a fleet begin with one."""

from argparse import ArgumentParser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from amplitude_async.cli.demo.fleet.log_servers import servers
from amplitude_async.fleet.addresses import log_at
from amplitude_async.fleet.log import Log

__all__ = ["KINDS", "arguments_of", "started_log"]

KINDS: Final = ("postgres", "nats")


@asynccontextmanager
async def started_log(kind: str, project: str) -> AsyncIterator[Callable[[], Log]]:
    """Start servers and set a log of one partition up, for as long as a block runs.

    Args:
        kind: of log: one of ``KINDS``.
        project: whose events it has.

    Yields:
        What makes the log once more, as another process would.
    """
    with TemporaryDirectory(prefix=f"fleet-{project}-") as folder:
        running = servers(kind, Path(folder))
        await running.start()
        try:
            make = partial(log_at, running.address, project=project)
            log = make()
            await log.setup(1)
            await log.close()
            yield make
        finally:
            await running.stop()


def arguments_of(about: str | None, kind: str) -> ArgumentParser:
    """Begin the arguments of a measurement: on which log it is made.

    Args:
        about: what is measured.
        kind: the log where none is named.
    """
    parser = ArgumentParser(description=about)
    parser.add_argument("--log", choices=KINDS, default=kind)
    return parser
