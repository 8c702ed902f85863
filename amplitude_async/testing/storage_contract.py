"""What every storage promises to the engine, as tests that anybody can run.

Give the class a way to make your storage, and pytest does the rest::

    class TestMyStorage(StorageContract):
        def make(self, directory: Path) -> Storage:
            return MyStorage(directory)

The tests run their own event loop: no plugin for asyncio is needed.
"""

# ruff: noqa: S101 - pytest is built on assert

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.exceptions import StorageError
from amplitude_async.storage.base import DeadLetter, Record, Storage

__all__ = ["HOSTILITIES", "METHODS", "HostileStorage", "StorageContract", "make_record"]

METHODS = ("open", "append", "fetch", "settle", "bury", "adopt", "close")
"""What an engine asks of a storage."""
HOSTILITIES: dict[str, Callable[[], BaseException]] = {
    "ConnectionError": lambda: ConnectionError("the storage is gone"),
    "OSError": lambda: OSError("the storage is read-only"),
    "StorageError": lambda: StorageError("the storage is locked"),
    "KeyError": lambda: KeyError("a bug"),
    "CancelledError": asyncio.CancelledError,
    "BaseException": lambda: OddError("not even an Exception"),
}
"""What a hostile storage may raise, by name."""
DESTINATION = "https://example.org/2/httpapi 0123456789abcdef"
OTHER_DESTINATION = "https://example.org/2/httpapi fedcba9876543210"
MUCH = 1_000_000


def make_record(number: int, size: int = 0) -> Record:
    """Make a record with an id; ``size`` pads its body."""
    user = f"user-{number % 7}"
    body = (
        b'{"event_type":"e\xc3\xa9","user_id":"%b","insert_id":"i-%d","city":"%b"}'
        % (
            user.encode(),
            number,
            b"x" * size,
        )
    )
    device = None if number % 2 else f"device-{number}"
    return Record(number, body, user, user, device, f"i-{number}", time.time())


class OddError(BaseException):
    """What no `except Exception` catches."""


class HostileStorage(Storage):
    """Stands before another storage and does to its calls what a script says.

    ``script`` names a fault for a method: one of ``HOSTILITIES``, which is raised
    (``"at once, "`` before it: by the call, and not by awaiting it), or

    * ``stall``: no answer, ever; ``stubborn``: likewise, however often it is cancelled;
    * ``late``: the answer comes when ``let_go`` is called;
    * ``after``: the work is done, and then an OSError is raised;
    * ``twice``: the work is done twice;
    * ``nonsense``: the answer is of a wrong type.

    Args:
        inner: does the work.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.durable = inner.durable
        self.dead_letters = inner.dead_letters
        self.default_max_age = inner.default_max_age
        self.script: dict[str, str] = {}
        """What is wrong with which method; all others work."""
        self._going = asyncio.Event()

    def let_go(self) -> None:
        """Let all calls end that are late or stubborn, and be good from now on."""
        self.script.clear()
        self._going.set()

    def _call(self, method: str, work: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        fault = self.script.get(method, "")
        if fault.startswith("at once, "):
            error = HOSTILITIES[fault.removeprefix("at once, ")]()
            raise error
        return self._suffer(fault, work)

    async def _suffer(self, fault: str, work: Callable[[], Awaitable[Any]]) -> Any:
        if fault in HOSTILITIES:
            error = HOSTILITIES[fault]()
            raise error
        if fault == "stall":
            await asyncio.Event().wait()
        if fault == "late":
            await self._going.wait()
        while fault == "stubborn" and not self._going.is_set():
            with suppress(asyncio.CancelledError):
                await self._going.wait()
        answer = await work()
        if fault == "twice":
            again = await work()
            return answer + again if isinstance(answer, list) else again
        if fault == "after":
            raise OSError("done, and yet failed")
        return object() if fault == "nonsense" else answer

    def open(self, destination: str, allot: Callable[[int], int]) -> Any:
        """Open the other one."""
        return self._call("open", lambda: self.inner.open(destination, allot))

    def append(self, records: Sequence[Record]) -> Awaitable[None]:
        """Write into the other one."""
        return self._call("append", lambda: self.inner.append(records))

    def fetch(self, after: int, limit: int, max_bytes: int) -> Any:
        """Read from the other one."""
        return self._call("fetch", lambda: self.inner.fetch(after, limit, max_bytes))

    def settle(self, ids: Sequence[int]) -> Any:
        """Forget what the other one has."""
        return self._call("settle", lambda: self.inner.settle(ids))

    def bury(self, letters: Sequence[DeadLetter]) -> Any:
        """Keep letters in the other one."""
        return self._call("bury", lambda: self.inner.bury(letters))

    def adopt(self, allot: Callable[[int], int]) -> Any:
        """Let the other one take over."""
        return self._call("adopt", lambda: self.inner.adopt(allot))

    async def size(self) -> int:
        """Count what the other one has."""
        return await self.inner.size()

    def close(self) -> Any:
        """Close the other one."""
        return self._call("close", self.inner.close)

    def after_fork(self) -> "HostileStorage":
        """Stand before the child's."""
        return HostileStorage(self.inner.after_fork())

    def __repr__(self) -> str:
        return f"<HostileStorage {self.inner!r} {self.script}>"


class _Ids:
    """Gives ids out as an engine does."""

    def __init__(self) -> None:
        self.last = 0

    def allot(self, count: int) -> int:
        """Reserve so many ids; returns the first."""
        first = self.last + 1
        self.last += count
        return first


class StorageContract:
    """Subclass it under a name that begins with ``Test`` and define ``make``."""

    @abstractmethod
    def make(self, directory: Path) -> Storage:
        """Make a storage that is not open yet; those of one directory share it."""

    # Helpers -----------------------------------------------------------------

    @asynccontextmanager
    async def opened(
        self, directory: Path, destination: str = DESTINATION
    ) -> AsyncIterator[tuple[Storage, _Ids]]:
        """Open a storage and close it in the end."""
        storage, ids = self.make(directory), _Ids()
        await storage.open(destination, ids.allot)
        try:
            yield storage, ids
        finally:
            await storage.close()

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run one test on a loop of its own; none may take long."""
        asyncio.run(asyncio.wait_for(test, 20.0))

    def only_durable(self, directory: Path) -> None:
        """Skip what a storage that keeps nothing cannot do."""
        if not self.make(directory).durable:
            pytest.skip("this storage keeps nothing")

    # What holds for every storage --------------------------------------------

    def test_a_new_storage_has_nothing(self, tmp_path: Path) -> None:
        """Nothing is taken over, read or counted where nothing was written."""

        async def test() -> None:
            storage, ids = self.make(tmp_path), _Ids()
            assert await storage.open(DESTINATION, ids.allot) == 0
            assert await storage.size() == 0
            assert await storage.fetch(0, 10, MUCH) == []
            assert await storage.adopt(ids.allot) == 0
            await storage.close()

        self.run(test())

    def test_settling_what_is_not_there_is_no_error(self, tmp_path: Path) -> None:
        """Ids that nobody knows, and none at all, are forgotten without a word."""

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                await storage.settle([])
                await storage.settle([5, 3, 10**9])
                await storage.append([make_record(1)])
                await storage.settle([1, 1])
                await storage.settle([1])
                assert await storage.size() == 0

        self.run(test())

    def test_letters_may_be_buried(self, tmp_path: Path) -> None:
        """A storage that keeps no dead letters takes them all the same."""

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                letter = DeadLetter(make_record(1), 400, "bad", 1.0)
                await storage.bury([letter])
                assert await storage.size() == 0

        self.run(test())

    def test_a_forked_child_gets_a_storage_of_its_own(self, tmp_path: Path) -> None:
        """It is a new one, opens beside the parent's, and sees nothing of it."""

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                await storage.append([make_record(1)])
                child, ids = storage.after_fork(), _Ids()
                assert child is not storage
                assert await child.open(DESTINATION, ids.allot) == 0
                await child.close()
                assert await storage.size() == int(storage.durable)

        self.run(test())

    # What a durable one promises beyond --------------------------------------

    def test_records_come_back_as_they_were(self, tmp_path: Path) -> None:
        """Every field survives, in order of id."""
        self.only_durable(tmp_path)

        async def test() -> None:
            records = [make_record(number) for number in range(1, 6)]
            async with self.opened(tmp_path) as (storage, _):
                await storage.append(records[:2])
                await storage.append(records[2:])
                assert await storage.fetch(0, 10, MUCH) == records
                assert await storage.size() == 5

        self.run(test())

    def test_reading_goes_on_where_it_is_told(self, tmp_path: Path) -> None:
        """Pages follow each other without a gap, bounded by count and bytes."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                await storage.append([make_record(n, size=100) for n in range(1, 8)])
                pages = []
                after = 0
                while page := await storage.fetch(after, 3, MUCH):
                    pages.append([record.id for record in page])
                    after = page[-1].id
                assert pages == [[1, 2, 3], [4, 5, 6], [7]]

                size = len(make_record(1, size=100).body)
                two = await storage.fetch(0, 10, size * 2 + 1)
                assert [record.id for record in two] == [1, 2]
                one = await storage.fetch(0, 10, 1)
                assert [record.id for record in one] == [1]

        self.run(test())

    def test_reading_takes_nothing_away(self, tmp_path: Path) -> None:
        """A record stays until it is settled, however often it was read."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                await storage.append([make_record(1)])
                first = await storage.fetch(0, 10, MUCH)
                assert await storage.fetch(0, 10, MUCH) == first
                assert await storage.size() == 1

        self.run(test())

    def test_what_is_settled_is_gone(self, tmp_path: Path) -> None:
        """Settled records are neither read nor counted, in this process or the next."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                await storage.append([make_record(n) for n in range(1, 8)])
                await storage.settle([6, 2, 3])
                assert await ids_in(storage) == [1, 4, 5, 7]
            async with self.opened(tmp_path) as (storage, _):
                assert [r.insert_id for r in await storage.fetch(0, 9, MUCH)] == [
                    "i-1",
                    "i-4",
                    "i-5",
                    "i-7",
                ]

        self.run(test())

    def test_calls_take_effect_in_their_order(self, tmp_path: Path) -> None:
        """A settlement right behind an append that nobody awaited undoes it."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                writing = asyncio.ensure_future(as_task(storage, [make_record(1)]))
                await asyncio.sleep(0)
                await storage.settle([1])
                await writing
                assert await storage.size() == 0

        self.run(test())

    def test_appends_end_in_the_order_in_which_they_began(self, tmp_path: Path) -> None:
        """However many wait at once, the first to ask is the first to know."""
        self.only_durable(tmp_path)

        async def test() -> None:
            ended: list[int] = []

            async def append(number: int) -> None:
                await storage.append([make_record(number)])
                ended.append(number)

            async with self.opened(tmp_path) as (storage, _):
                await asyncio.gather(*map(append, range(1, 101)))
                assert ended == list(range(1, 101))
                assert await ids_in(storage) == ended

        self.run(test())

    def test_a_cancelled_append_harms_no_other(self, tmp_path: Path) -> None:
        """Those who wait beside one that is cancelled have their records written."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                tasks = [
                    asyncio.ensure_future(as_task(storage, [make_record(number)]))
                    for number in (1, 2, 3)
                ]
                await asyncio.sleep(0)
                tasks[1].cancel()
                await asyncio.gather(tasks[0], tasks[2])
                with pytest.raises(asyncio.CancelledError):
                    await tasks[1]
                await storage.settle([2])
                assert await ids_in(storage) == [1, 3]

        self.run(test())

    def test_the_next_process_takes_over(self, tmp_path: Path) -> None:
        """It gets every unsettled record once, in order, under ids it was allotted."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                await storage.append([make_record(n) for n in range(100, 105)])
                await storage.settle([102])
            storage, ids = self.make(tmp_path), _Ids()
            ids.allot(50)
            assert await storage.open(DESTINATION, ids.allot) == 4
            assert await storage.size() == 4
            await storage.append([make_record(ids.allot(1))])
            found = await storage.fetch(0, 10, MUCH)
            names = [record.insert_id for record in found]
            assert names[:4] == ["i-100", "i-101", "i-103", "i-104"]
            numbers = [record.id for record in found]
            assert numbers == sorted(set(numbers))
            assert 50 < numbers[0] <= numbers[-1] <= ids.last
            await storage.settle(numbers[:4])
            await storage.close()
            async with self.opened(tmp_path) as (storage, _):
                assert await storage.size() == 1

        self.run(test())

    def test_two_at_once_share_nothing(self, tmp_path: Path) -> None:
        """An open storage keeps its records from another in the same place."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with (
                self.opened(tmp_path) as (first, _),
                self.opened(tmp_path) as (second, ids),
            ):
                await first.append([make_record(1)])
                assert await second.adopt(ids.allot) == 0
                assert await ids_in(second) == []

        self.run(test())

    def test_another_destination_gets_nothing(self, tmp_path: Path) -> None:
        """Records wait for a process that sends to where they belong."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                await storage.append([make_record(1)])
            async with self.opened(tmp_path, OTHER_DESTINATION) as (storage, ids):
                assert await storage.size() == 0
                assert await storage.adopt(ids.allot) == 0
            async with self.opened(tmp_path) as (storage, _):
                assert await storage.size() == 1

        self.run(test())

    def test_an_idle_process_takes_over_later(self, tmp_path: Path) -> None:
        """What another process leaves behind is found without a restart."""
        self.only_durable(tmp_path)

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, ids):
                async with self.opened(tmp_path) as (other, _):
                    await other.append([make_record(1)])
                assert await storage.adopt(ids.allot) == 1
                assert await storage.adopt(ids.allot) == 0
                found = await storage.fetch(0, 10, MUCH)
                assert [record.insert_id for record in found] == ["i-1"]

        self.run(test())

    def test_a_closed_storage_can_be_closed_again(self, tmp_path: Path) -> None:
        """A second close does nothing."""

        async def test() -> None:
            async with self.opened(tmp_path) as (storage, _):
                pass
            await storage.close()

        self.run(test())


async def as_task(storage: Storage, records: Sequence[Record]) -> None:
    """Append, as a coroutine that a task can run."""
    written: Awaitable[None] = storage.append(records)
    await written


async def ids_in(storage: Storage) -> list[int]:
    """List the ids of all unsettled records."""
    return [record.id for record in await storage.fetch(0, 10_000, MUCH)]
