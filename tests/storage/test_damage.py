"""One damaged page costs the rows on it and nothing else."""

import asyncio
import logging
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amplitude_async.exceptions import StorageError
from amplitude_async.storage import DeadLetter, Record, SQLiteStorage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock, new_spool_path
from amplitude_async.testing.storage_contract import make_record

__all__: list[str] = []

HERE = "api.example.com/aaaa"
MUCH = 10**9
# Small and large ones, as a page holds several of the former and one of the latter
# takes several pages.
RECORDS = {n: make_record(n, 9_000 if n % 9 == 0 else 40) for n in range(1, 241)}
SEEDS = int(os.environ.get("SPOOL_DAMAGE_SEEDS", "150"))


def counter() -> Callable[[int], int]:
    """Return what gives ids as an engine does."""
    last = 0

    def allot(count: int) -> int:
        nonlocal last
        first = last + 1
        last += count
        return first

    return allot


async def drain(directory: Path) -> dict[str, Record]:
    """Open a spool, read all of it page by page, settle it and close it."""
    storage = SQLiteStorage(directory)
    found: dict[str, Record] = {}
    allot = counter()
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
    query = "SELECT body, identity, insert_id, user_id FROM events WHERE id = ?"
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
            whole = (record.body, record.identity, record.insert_id, record.user_id)
            if row == whole and sound(connection, number, record):
                found.add(record.insert_id)
    return found


def sound(connection: sqlite3.Connection, number: int, record: Record) -> bool:
    """Say whether the other columns are as they were written, too."""
    query = "SELECT device_id, accepted_at FROM events WHERE id = ?"
    try:
        row = connection.execute(query, (number,)).fetchone()
    except (sqlite3.Error, UnicodeError, ValueError, OverflowError):
        return False
    return bool(row == (record.device_id, record.accepted_at))


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
        file.bury([DeadLetter(make_record(900), 400, "bad", 5.0)], 10)
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


@pytest.mark.parametrize("seed", range(SEEDS))
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
    bodies = {one.insert_id: one.body for one in RECORDS.values()}
    assert {name: one.body for name, one in found.items()}.items() <= bodies.items()
    assert await drain(tmp_path / "spool") == {}
