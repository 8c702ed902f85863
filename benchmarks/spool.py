"""What durability costs: trackers with a spool beside trackers without, and a drain.

Run it as ``python benchmarks/spool.py``, with ``--drain`` for the large one, and with
``--limits`` for where the time of 64 trackers goes.
All figures of one run come from one machine in one state: compare ratios, not numbers.
"""

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amplitude_async import Amplitude
from amplitude_async.storage import MemoryStorage, Record, SQLiteStorage, Storage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import new_spool_path

__all__: list[str] = []

EVENTS = 32_000
ROUNDS = 3
STORED = 1_000_000
PAGE = 10_000
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"code":200}'


class Sink(asyncio.Protocol):
    """Reads requests and says that all is well, as fast as Python can."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request whose body is complete."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._data) < end + 4 + length:
                return
            self._data = self._data[end + 4 + length :]
            self._transport.write(ANSWER)


async def serve() -> None:
    """Run the sink in a process of its own; its first line is its port."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Together:
    """Futures that are done in the loop's next turn, all at once."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def future(self) -> asyncio.Future[None]:
        """Make one of them."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._end)
        self._waiting.append(future)
        return future

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)


class Nowhere(MemoryStorage):
    """A storage that is as durable as any, and writes nothing: the engine's share."""

    durable = True

    def __init__(self) -> None:
        self._together = Together()

    def append(self, _: Sequence[Record]) -> asyncio.Future[None]:
        """Say in the next turn of the loop that all is written."""
        return self._together.future()


async def tracked(
    url: str, storage: Storage, trackers: int, together: Together | None = None
) -> float:
    """Return how many events per second so many trackers get accepted.

    With futures at hand, each tracker awaits one after each event.
    """

    async def track(worker: int) -> None:
        for number in range(EVENTS // trackers):
            await client.track(
                "Order Paid",
                user_id=f"user-{worker}-{number % 20}",
                event_properties={"n": number, "total": 19.5, "tags": ["a", "b"]},
            )
            if together is not None:
                await together.future()

    async with Amplitude("key", server_url=url, storage=storage) as client:
        await client.track("warm", user_id="user-1")
        await client.flush()
        began = time.perf_counter()
        await asyncio.gather(*map(track, range(trackers)))
        took = time.perf_counter() - began
        await client.flush(60)
    return EVENTS / took


async def compare(url: str) -> None:
    """Print the throughput of both storages, one after the other, and the ratio."""
    kinds: dict[str, Callable[[], Storage]] = {
        "memory": MemoryStorage,
        "spool, normal": lambda: SQLiteStorage(tempfile.mkdtemp()),
        "spool, full": lambda: SQLiteStorage(tempfile.mkdtemp(), synchronous="full"),
    }
    for trackers in (64, 1):
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, make in kinds.items():
                rates[name].append(await tracked(url, make(), trackers))
        best = statistics.median(rates["memory"])
        for name, found in rates.items():
            rate = statistics.median(found)
            print(
                f"{trackers:3} trackers  {name:14} {rate:9,.0f}/s  {rate / best:5.0%}"
            )


async def limits(url: str) -> None:
    """Print what each part of the way of an event costs 64 trackers."""
    ways: dict[str, Callable[[], tuple[Storage, Together | None]]] = {
        "memory": lambda: (MemoryStorage(), None),
        "memory, and a future awaited": lambda: (MemoryStorage(), Together()),
        "a storage that writes nothing": lambda: (Nowhere(), None),
        "spool, normal": lambda: (SQLiteStorage(tempfile.mkdtemp()), None),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, make in ways.items():
            storage, together = make()
            rates[name].append(await tracked(url, storage, 64, together))
    best = statistics.median(rates["memory"])
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:30} {1e6 / rate:6.1f} us an event  {rate / best:5.0%}")


def fill(directory: Path, destination: str) -> None:
    """Write the spool of a process that died in a long outage."""
    spool = SpoolFile.create(new_spool_path(directory), destination, full_sync=False)
    body = b'{"event_type":"Order Paid","user_id":"user-%d","insert_id":"%d","time":%d}'
    now = time.time()
    for start in range(1, STORED + 1, PAGE):
        spool.insert(
            Record(
                number,
                body % (number % 5_000, number, now * 1000),
                f"user-{number % 5_000}",
                f"user-{number % 5_000}",
                None,
                str(number),
                now,
            )
            for number in range(start, start + PAGE)
        )
    spool.close()


def megabytes() -> float:
    """Return the memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def megabytes_on_disk(directory: Path) -> float:
    """Return the size of all files in a directory."""
    return sum(path.stat().st_size for path in directory.iterdir()) / 1e6


async def drain(url: str, directory: Path) -> None:
    """Open a spool of a million events and send it; print time and memory."""
    client = Amplitude("key", server_url=url, storage=SQLiteStorage(directory))
    # A spool names its destination, which only the client can.
    destination = client._endpoint.fingerprint()  # noqa: SLF001
    await asyncio.to_thread(fill, directory, destination)
    size = await asyncio.to_thread(megabytes_on_disk, directory)
    before = highest = megabytes()
    began = time.perf_counter()
    await client.start()
    opened = time.perf_counter() - began
    print(f"{STORED:,} events, {size:,.0f} MB on disk, opened in {opened:.2f} s")
    flushing = asyncio.ensure_future(client.flush(None))
    while not flushing.done():
        await asyncio.sleep(0.01)
        highest = max(highest, megabytes())
    took = time.perf_counter() - began
    stats = await flushing
    rate = stats.delivered / took
    print(f"delivered {stats.delivered:,} in {took:.1f} s ({rate:,.0f}/s)")
    print(f"memory at most {highest - before:.0f} MB above {before:.0f} MB")
    await client.shutdown()


async def main(arguments: Any) -> None:
    """Start the sink and measure against it."""
    sink = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--sink", stdout=asyncio.subprocess.PIPE
    )
    assert sink.stdout is not None  # noqa: S101
    port = int(await sink.stdout.readline())
    url = f"http://127.0.0.1:{port}/"
    try:
        if arguments.drain:
            with tempfile.TemporaryDirectory() as directory:
                await drain(url, Path(directory))
        elif arguments.limits:
            await limits(url)
        else:
            await compare(url)
    finally:
        sink.kill()
        await sink.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drain", action="store_true", help="drain a million events")
    parser.add_argument("--limits", action="store_true", help="show what costs what")
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    asyncio.run(serve() if given.sink else main(given))
