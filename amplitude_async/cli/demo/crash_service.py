"""The demo's web service in a process of its own, with a spool, made to be killed.

Runs as ``python -m amplitude_async.cli.demo.crash_service``, with the client's options
as JSON. It prints where it listens, ends when its standard input does, and then prints
its account.
"""

import asyncio
import json
import signal
import sys
from dataclasses import asdict
from typing import Any

from amplitude_async import Amplitude
from amplitude_async.cli.demo.purchase_service import PurchaseService
from amplitude_async.storage import SQLiteStorage

__all__ = ["run_service"]


async def run_service(spool: str, options: dict[str, Any]) -> None:
    """Take purchases until standard input ends.

    Args:
        spool: the directory of the client's spool.
        options: the client's other options.
    """
    client = Amplitude("demo-key", storage=SQLiteStorage(spool), **options)
    async with client, PurchaseService(client) as service:
        _print({"url": service.url})
        await _end_of_input()
    # The reasons are no JSON, and their sum is there.
    _print({**asdict(client.stats), "dropped_by_reason": {}, "destinations": {}})


async def _end_of_input() -> None:
    """Wait for whoever started us to let go, be it by dying."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


def _print(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Ctrl-C is for the demo, which then lets go of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(run_service(sys.argv[1], json.loads(sys.argv[2])))
