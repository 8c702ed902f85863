"""One damaged page costs the rows on it and nothing else."""

import asyncio
import logging
import os
import random
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from amplitude_async.exceptions import StorageError
from amplitude_async.storage import DeadLetter, Record, SQLiteStorage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import new_spool_path
from amplitude_async.storage.spool.receiving import receive
from amplitude_async.testing.storage_contract import make_record
from tests.storage.conftest import Ids

__all__: list[str] = []

HERE = "api.example.com/aaaa"
MUCH = 10**9
# Small and large ones, as a page holds several of the former and one of the latter
# takes several pages.
RECORDS = {n: make_record(n, 9_000 if n % 9 == 0 else 40) for n in range(1, 241)}
# So many run wherever the suite does.
FEW_SEEDS = 10
MARK = pytest.mark
SEEDS = int(os.environ.get("SPOOL_DAMAGE_SEEDS", "60"))


async def drain(directory: Path) -> dict[str, Record]:
    """Open a spool, read all of it page by page, settle it and close it."""
    storage = SQLiteStorage(directory)
    found: dict[str, Record] = {}
    allot = Ids()
    await storage.open(HERE, allot)
    after = 0
    while page := await storage.fetch(after, 50, 200_000):
        after = page[-1].id
        found |= {one.insert_id: one for one in page if one.body}
        await storage.settle([one.id for one in page])
    # It goes on working for new events.
    new = make_record(allot(1))
    await storage.append([new])
    assert (await storage.fetch(after, 50, MUCH))[-1:] == [new]
    await storage.settle([new.id])
    await storage.close()
    return found


def readable(path: Path) -> set[str]:
    """Ask SQLite for each event by its number, and say which it still has."""
    found = set()
    query = "SELECT * FROM events WHERE id = ?"
    with closing(sqlite3.connect(path)) as connection:
        try:
            labels = dict(connection.execute("SELECT key, value FROM meta"))
        except (sqlite3.Error, UnicodeError):
            return set()
        # Without its label nobody knows whose events they are.
        if labels != {"schema": "2", "destination": HERE}:
            return set()
        for number, record in RECORDS.items():
            try:
                row = connection.execute(query, (number,)).fetchone()
            except (sqlite3.Error, UnicodeError, ValueError, OverflowError):
                continue
            # A damaged checksum makes a body as doubtful as a damaged body does.
            if row == (*record, zlib.crc32(record.body)):
                found.add(record.insert_id)
    return found


def spoil(content: bytes, dice: random.Random) -> bytes:
    """Overwrite one to ten places with chance."""
    spoiled = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 10))):
        length = dice.choice((1, 4, 64, 4096))
        start = dice.randrange(len(spoiled))
        part = dice.randbytes(min(length, len(spoiled) - start))
        spoiled[start : start + length] = part
    return bytes(spoiled)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, bytes]:
    """Return a closed file, and one of a killed process with its log."""
    path = tmp_path_factory.mktemp("whole") / "one.spool"
    with closing(SpoolFile.create(path, HERE, full_sync=False)) as file:
        file.insert(list(RECORDS.values())[:120])
        file.letters.bury([DeadLetter(make_record(900), 400, "bad", 5.0)], 10)
        with closing(SpoolFile.open(path)):
            pass
        file.insert(list(RECORDS.values())[120:])
        killed, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    return path.read_bytes(), killed, log


def place(directory: Path, content: bytes, log: bytes | None = None) -> Path:
    """Put a file where a spool finds it."""
    directory.mkdir()
    path = new_spool_path(directory)
    path.write_bytes(content)
    path.chmod(0o600)
    if log is not None:
        Path(f"{path}-wal").write_bytes(log)
        Path(f"{path}-wal").chmod(0o600)
    return path


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(n, marks=[pytest.mark.long] * (n >= FEW_SEEDS))
        for n in range(SEEDS)
    ],
)
async def test_whatever_sqlite_can_read_is_delivered(
    seed: int, whole: tuple[bytes, bytes, bytes], tmp_path: Path
) -> None:
    """Bytes are overwritten by chance: rows that are whole arrive, nothing hangs."""
    dice = random.Random(seed)
    closed, killed, log = whole
    where = dice.choice(("closed", "killed", "log"))
    if where == "closed":
        content, beside = spoil(closed, dice), None
    elif where == "killed":
        content, beside = spoil(killed, dice), log
    else:
        content, beside = killed, spoil(log, dice)
    await asyncio.to_thread(place, tmp_path / "spool", content, beside)
    twin = await asyncio.to_thread(place, tmp_path / "twin", content, beside)
    expected = await asyncio.to_thread(readable, twin)

    async with asyncio.timeout(20):
        found = await drain(tmp_path / "spool")

    assert expected <= set(found)
    # Nothing is made up, and nothing comes again at the next start.
    bodies = {one.body for one in RECORDS.values()}
    assert {one.body for one in found.values()} <= bodies
    assert await drain(tmp_path / "spool") == {}


# While the process lives --------------------------------------------------------------


def spoil_row(path: Path, number: int) -> None:
    """Damage what lies behind an event's first page, in a file that is in use."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    mark = b'"insert_id":"i-%d","city":"' % number
    end = content.index(mark) + len(mark)
    while content[end : end + 1] == b"x":
        end += 1
    # Here the number of the page follows on which the event goes on.
    with path.open("r+b") as file:
        file.seek(end)
        file.write(b"\xff\xff\xff\xff")


def leave(directory: Path, *records: Record, destination: str = HERE) -> Path:
    """Write the file of a process that is gone, with a dead letter."""
    path = new_spool_path(directory)
    with closing(SpoolFile.create(path, destination, full_sync=False)) as file:
        file.insert(records)
        file.letters.bury([DeadLetter(make_record(900), 400, "bad", 5.0)], 10)
    return path


def change(path: Path, statement: str, *values: int) -> None:
    """Do to a file what a broken disk may do to it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement, values)
        connection.commit()


def only_file(directory: Path) -> Path:
    """Find the one file of a spool."""
    (path,) = directory.glob("*.spool")
    return path


FIFTY = list(RECORDS.values())[:50]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[SpoolFile, Path]]:
    """Yield an open file with events, and where it is."""
    path = tmp_path / "one.spool"
    file = SpoolFile.create(path, HERE, full_sync=False)
    file.insert(RECORDS.values())
    yield file, path
    file.close()


async def test_an_own_file_that_is_damaged_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """49 good events and 20 fresh ones arrive, and nothing comes again."""
    storage = SQLiteStorage(tmp_path)
    await storage.open(HERE, Ids())
    for number in range(1, 51):
        await storage.append([RECORDS[number]])
    path = only_file(tmp_path)
    await asyncio.to_thread(spoil_row, path, 27)
    for number in range(51, 71):
        await storage.append([RECORDS[number]])

    found: list[Record] = []
    while page := await storage.fetch(found[-1].id if found else 0, 10, MUCH):
        found += page

    assert [one.id for one in found if one.body] == [
        number for number in range(1, 71) if number != 27
    ]
    assert await storage.size() == 69
    assert "that could be read moved to" in caplog.text
    await storage.settle([one.id for one in found])
    assert await storage.size() == 0
    await storage.close()
    assert await drain(tmp_path) == {}
    assert path.with_suffix(".corrupt").exists()


async def test_settling_on_a_damaged_page_forgets_the_rest(tmp_path: Path) -> None:
    """What was delivered is not sent again, whatever page it lies on."""
    storage = SQLiteStorage(tmp_path)
    await storage.open(HERE, Ids())
    await storage.append(list(RECORDS.values())[:50])
    path = only_file(tmp_path)
    await asyncio.to_thread(spoil_row, path, 27)

    await storage.settle(range(1, 41))
    await storage.close()

    assert set(await drain(tmp_path)) == {f"i-{number}" for number in range(41, 51)}


async def test_a_damaged_orphan_is_taken_over_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside, and the next start finds nothing of it."""
    path = await asyncio.to_thread(leave, tmp_path, *FIFTY)
    await asyncio.to_thread(spoil_row, path, 27)

    assert len(await drain(tmp_path)) == 49
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "49 events that could be read moved to" in errors[0].getMessage()
    assert await drain(tmp_path) == {}
    storage = SQLiteStorage(tmp_path, dead_letters=5)
    await storage.open(HERE, Ids())
    assert [one.message for one in await storage.list_dead_letters()] == ["bad"]
    await storage.close()


async def test_a_header_that_forbids_writing_is_damage(tmp_path: Path) -> None:
    """Else its events would come at each start, and never be deleted."""
    path = await asyncio.to_thread(leave, tmp_path, *FIFTY)
    content = bytearray(await asyncio.to_thread(path.read_bytes))
    content[18] = 7
    await asyncio.to_thread(path.write_bytes, content)

    assert len(await drain(tmp_path)) == 50
    assert await drain(tmp_path) == {}
    assert path.with_suffix(".corrupt").exists()


async def test_a_damaged_file_without_its_label_is_set_aside(tmp_path: Path) -> None:
    """Nobody knows whose events they are: they stay for people."""
    path = await asyncio.to_thread(leave, tmp_path, make_record(1))
    await asyncio.to_thread(change, path, "DELETE FROM meta")

    assert await drain(tmp_path) == {}
    assert path.with_suffix(".corrupt").exists()


async def test_a_damaged_file_of_another_destination_is_left(tmp_path: Path) -> None:
    """Only who may send its events sets it aside."""
    write = partial(leave, tmp_path, *FIFTY, destination="elsewhere")
    path = await asyncio.to_thread(write)
    await asyncio.to_thread(spoil_row, path, 27)

    assert await drain(tmp_path) == {}
    assert path.exists()


@pytest.mark.parametrize("number", [2**63 - 2, 2**40, -7, 0])
async def test_a_number_out_of_bounds_hangs_nobody(number: int, tmp_path: Path) -> None:
    """Its event is delivered under another one, and ids do not run out."""
    path = await asyncio.to_thread(leave, tmp_path, *FIFTY[:3])
    renumber = "UPDATE events SET id = ? WHERE id = 2"
    await asyncio.to_thread(change, path, renumber, number)
    allot = Ids()
    storage = SQLiteStorage(tmp_path)
    assert await storage.open(HERE, allot) == 3
    assert allot(1) < 1_000
    found = await storage.fetch(0, 10, MUCH)
    assert {one.insert_id for one in found} == {"i-1", "i-2", "i-3"}
    await storage.settle([one.id for one in found])
    await storage.close()
    assert await drain(tmp_path) == {}


def test_a_row_without_a_place_of_its_own_is_set_aside(
    live: tuple[SpoolFile, Path], tmp_path: Path
) -> None:
    """Where numbers are in use, none is given anew."""
    file, path = live
    change(path, "UPDATE events SET id = ? WHERE id = 2", 2**41)
    with closing(SpoolFile.create(tmp_path / "two.spool", HERE, full_sync=False)) as to:
        assert receive(to, file, renumber=False) == (len(RECORDS) - 1, 1)
        assert to.quarantined() == 1
        assert to.extent()[2:] == (1, len(RECORDS))


async def test_a_disk_that_spoils_every_copy_is_not_filled_with_them(
    tmp_path: Path,
) -> None:
    """A file is replaced three times, and then its trouble is told."""
    storage = SQLiteStorage(tmp_path)
    await storage.open(HERE, Ids())
    await storage.append(FIFTY)
    for number in (9, 18, 27):
        await asyncio.to_thread(spoil_row, only_file(tmp_path), number)
        found = await storage.fetch(0, 60, MUCH)
    assert len(found) == 47
    await asyncio.to_thread(spoil_row, only_file(tmp_path), 36)
    with pytest.raises(StorageError, match="malformed"):
        await storage.fetch(0, 60, MUCH)
    await storage.close()
    assert len(await drain(tmp_path)) == 46
