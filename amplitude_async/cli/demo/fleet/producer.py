"""A producer in a process of its own: it tracks, and tells what the log has.

It writes a line for each event that a verb said is handed over: the insert id, the
user and the number of the event among the user's. SIGTERM ends it in good order, with a
last line ``balanced`` or ``unbalanced``.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Final

from amplitude_async import Amplitude, Delivery, DeliveryStatus
from amplitude_async.fleet.addresses import log_at
from amplitude_async.storage import SQLiteStorage

__all__ = ["main"]

PAUSE: Final = 0.004


async def produce(arguments: argparse.Namespace) -> bool:
    """Track until somebody says stop; returns whether the account adds up."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    log = log_at(arguments.log, project=arguments.project)
    storage = SQLiteStorage(arguments.spool) if arguments.spool else None
    client = Amplitude(
        handover=log,
        storage=storage,
        confirm_timeout=arguments.confirm_timeout,
        shutdown_timeout=20.0,
    )
    longest = 0.0

    def tell(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    def tell_late(line: str, done: Delivery) -> None:
        result = done.result
        if result is not None and result.status is DeliveryStatus.HANDED_OVER:
            tell(line)

    async def one(user: str) -> None:
        nonlocal longest
        number = 0
        while not stopping.is_set():
            began = loop.time()
            delivery = await client.track(
                "Tick", user_id=user, event_properties={"n": number}
            )
            longest = max(longest, loop.time() - began)
            line = f"{delivery.insert_id} {user} {number}\n"
            result = delivery.result
            if result is None:
                # The verb has waited long enough; the event goes on.
                delivery.add_done_callback(partial(tell_late, line))
            elif result.status is DeliveryStatus.HANDED_OVER:
                tell(line)
            number += 1
            await asyncio.sleep(PAUSE)

    async with client:
        users = [f"{arguments.name}-user-{n}" for n in range(arguments.users)]
        await asyncio.gather(*map(one, users))
    stats = client.stats
    tell(
        f"{'balanced' if stats.balanced else 'unbalanced'} longest={longest:.3f} "
        f"accepted={stats.accepted} handed_over={stats.handed_over} "
        f"dropped={stats.dropped} stored={stats.stored} recovered={stats.recovered}\n"
    )
    return stats.balanced


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--spool", type=Path)
    parser.add_argument("--confirm-timeout", type=float, default=1.0)
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(0 if asyncio.run(produce(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
