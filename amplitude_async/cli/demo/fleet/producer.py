"""A producer in a process of its own: it tracks, and tells what the log has.

It writes a line for each event that a verb said is handed over: the insert id, the
user and the number of the event among the user's. SIGTERM ends it in good order, with a
last line ``balanced`` or ``unbalanced``.
"""

import argparse
import asyncio
import contextlib
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from amplitude_async import Amplitude, Delivery, DeliveryStatus
from amplitude_async.fleet.addresses import log_at
from amplitude_async.storage import SQLiteStorage

__all__ = ["main"]

PAUSE: Final = 0.004


class Teller:
    """Writes lines to standard output in a thread: who reads slowly holds up no loop.

    What a verb takes would be measured together with the reader of the pipe else.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="teller")

    def __repr__(self) -> str:
        return f"<Teller, {self._lines.qsize()} lines to be written>"

    def tell(self, line: str) -> None:
        """Have a line written soon."""
        self._lines.put(line)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Write, until the block ends and all is written."""
        self._thread.start()
        try:
            yield
        finally:
            self._lines.put(None)
            self._thread.join()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            sys.stdout.write(line)
            if self._lines.empty():
                sys.stdout.flush()
        sys.stdout.flush()


class Tracker:
    """Tracks for some users at once, and tells of each event that the log has.

    Args:
        client: hands over.
        stopping: set once no more is to be tracked.
        tell: writes a line.
    """

    def __init__(
        self, client: Amplitude, stopping: asyncio.Event, tell: Callable[[str], None]
    ) -> None:
        self._client = client
        self._stopping = stopping
        self._tell = tell
        self.longest = 0.0
        """Seconds that a verb took, at the most."""

    def __repr__(self) -> str:
        return f"<Tracker {self._client!r}, {self.longest:.3f} s at the most>"

    async def track_for(self, user: str) -> None:
        """Track one event after another until somebody says stop."""
        loop, number = asyncio.get_running_loop(), 0
        while not self._stopping.is_set():
            began = loop.time()
            delivery = await self._client.track(
                "Tick", user_id=user, event_properties={"n": number}
            )
            self.longest = max(self.longest, loop.time() - began)
            line = f"{delivery.insert_id} {user} {number}\n"
            if delivery.done:
                self._tell_if_handed_over(line, delivery)
            else:
                # The verb has waited long enough; the event goes on.
                delivery.add_done_callback(partial(self._tell_if_handed_over, line))
            number += 1
            await asyncio.sleep(PAUSE)

    def _tell_if_handed_over(self, line: str, delivery: Delivery) -> None:
        result = delivery.result
        if result is not None and result.status is DeliveryStatus.HANDED_OVER:
            self._tell(line)

    def account(self) -> str:
        """Say in a line whether all that was tracked has an outcome."""
        stats = self._client.stats
        return (
            f"{'balanced' if stats.balanced else 'unbalanced'} "
            f"longest={self.longest:.3f} "
            f"accepted={stats.accepted} handed_over={stats.handed_over} "
            f"dropped={stats.dropped} stored={stats.stored} "
            f"recovered={stats.recovered}\n"
        )


async def produce(arguments: argparse.Namespace) -> bool:
    """Track until somebody says stop; returns whether the account adds up."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    client = Amplitude(
        handover=log_at(arguments.log, project=arguments.project),
        storage=SQLiteStorage(arguments.spool) if arguments.spool else None,
        confirm_timeout=arguments.confirm_timeout,
        shutdown_timeout=20.0,
    )
    teller = Teller()
    tracker = Tracker(client, stopping, teller.tell)
    with teller.running():
        async with client:
            users = [f"{arguments.name}-user-{n}" for n in range(arguments.users)]
            await asyncio.gather(*map(tracker.track_for, users))
        teller.tell(tracker.account())
    return client.stats.balanced


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
