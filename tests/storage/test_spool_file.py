"""One file of a spool: what is in it, what may be wrong with it, who may see it."""

# ruff: noqa: S608 - every statement is made of constants of this file

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amplitude_async.exceptions import StorageError
from amplitude_async.storage import DeadLetter
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock
from amplitude_async.storage.spool.receiving import inherit
from amplitude_async.storage.spool.schema import SCHEMA_VERSION, CorruptSpoolError
from amplitude_async.testing.storage_contract import make_record

__all__: list[str] = []

MUCH = 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file that is not there yet."""
    return tmp_path / "one.spool"


@pytest.fixture
def spool(path: Path) -> Iterator[SpoolFile]:
    """Yield a new, open file."""
    file = SpoolFile.create(path, "here", full_sync=False)
    yield file
    file.close()


def change(path: Path, *statements: str) -> None:
    """Do to a file what should not be done to it."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def redefine(path: Path, assignment: str) -> None:
    """Change the definition of the table of events and none of its rows."""
    change(
        path,
        "PRAGMA writable_schema=ON",
        f"UPDATE sqlite_master SET {assignment} WHERE name = 'events'",
    )


def letter(number: int) -> DeadLetter:
    """Make a dead letter."""
    return DeadLetter(make_record(number), 400, f"bad {number}", 5.0)


def test_a_file_is_for_its_owner_only(spool: SpoolFile, path: Path) -> None:
    """The database, and what SQLite keeps beside it, have mode 0600."""
    spool.insert([make_record(1)])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in spools(path)}

    assert modes == {"one.spool": 0o600, "one.spool-shm": 0o600, "one.spool-wal": 0o600}


def spools(path: Path) -> list[Path]:
    """List the files of a spool."""
    return sorted(path.parent.glob(f"{path.name}*"))


def test_a_file_that_is_there_is_not_overwritten(spool: SpoolFile, path: Path) -> None:
    """To create a file where one is fails, and leaves it as it was."""
    spool.insert([make_record(1)])
    with pytest.raises(StorageError, match="File exists"):
        SpoolFile.create(path, "here", full_sync=False)

    assert spool.extent()[0] == 1


def test_a_file_of_version_one_is_brought_up_to_date(path: Path) -> None:
    """Its records are whole, and it can keep dead letters from then on."""
    version_one(path)
    with closing(SpoolFile.open(path)) as file:
        assert file.fetch(0, 10, MUCH) == [make_record(7)._replace(accepted_at=5.0)]
        file.letters.bury([letter(1)], keep=5)
        assert len(file.letters.read()) == 1
    with closing(SpoolFile.open(path)) as file:
        assert file.letters.count() == 1


def version_one(path: Path) -> None:
    """Write a file as the first version did."""
    record = make_record(7)._replace(accepted_at=5.0)
    with closing(SpoolFile.create(path, "here", full_sync=False)) as file:
        file.insert([record])
    change(
        path,
        "DROP TABLE dead_letters",
        "UPDATE meta SET value = '1' WHERE key = 'schema'",
    )


def test_a_file_from_the_future_is_left_alone(spool: SpoolFile, path: Path) -> None:
    """The error names both versions and what to do, and is no corruption."""
    change(path, f"UPDATE meta SET value = '{SCHEMA_VERSION + 1}' WHERE key = 'schema'")
    for opened in (SpoolFile.open, SpoolFile.view):
        with pytest.raises(StorageError, match="use the version of") as raised:
            opened(path)
        assert not isinstance(raised.value, CorruptSpoolError)


@pytest.mark.parametrize(
    "content",
    [b"no database at all, but a text" * 100, b"SQLite format 3\0" + b"\xff" * 5000],
)
def test_what_is_no_database_is_called_so(content: bytes, path: Path) -> None:
    """A file of something else is corrupt, whoever opens it."""
    path.write_bytes(content)
    with pytest.raises(CorruptSpoolError, match="no usable spool"):
        SpoolFile.open(path)
    with pytest.raises(StorageError):
        SpoolFile.view(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE meta",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'two' WHERE key = 'schema'",
    ],
)
def test_a_database_of_something_else_is_called_so(
    statement: str, spool: SpoolFile, path: Path
) -> None:
    """A database without our label is no spool."""
    change(path, statement)
    with pytest.raises(CorruptSpoolError, match="spool"):
        SpoolFile.open(path)


def test_a_file_whose_making_was_cut_short_is_blank(path: Path) -> None:
    """A process that dies in the first instant leaves a file that holds nothing."""
    path.touch()
    with closing(SpoolFile.open(path, migrate=False)) as file:
        assert file.blank
    path.unlink()
    with closing(SpoolFile.create(path, "here", full_sync=True)) as file:
        assert not file.blank


@pytest.mark.parametrize(
    "damage",
    [
        "body = x'7b7d'",
        "body = 'text'",
        "body = NULL",
        "insert_id = CAST(x'ff' AS TEXT)",
        "identity = CAST(x'c328' AS TEXT)",
        "accepted_at = 'yesterday'",
        "checksum = 1",
    ],
)
def test_a_damaged_record_blocks_no_other(
    damage: str, spool: SpoolFile, path: Path
) -> None:
    """It comes back without a body, between those that are whole."""
    spool.insert([make_record(number) for number in (1, 2, 3)])
    # What a broken disk can write, a constraint forbids.
    allow = "sql = replace(sql, ' NOT NULL', ' /* can */')"
    forbid = "sql = replace(sql, ' /* can */', ' NOT NULL')"
    redefine(path, allow)
    change(path, f"UPDATE events SET {damage} WHERE id = 2")
    redefine(path, forbid)

    with closing(SpoolFile.open(path)) as file:
        found = file.fetch(0, 10, MUCH)
        assert [bool(record.body) for record in found] == [True, False, True]
        assert [record.id for record in found] == [1, 2, 3]
        assert [bool(record.body) for record in file.peek()] == [True, False, True]
        assert file.quarantine([2])[0] == 1
        assert (file.quarantined(), file.extent()[0]) == (1, 2)
        assert file.keeps


def test_settled_records_are_counted(spool: SpoolFile) -> None:
    """Deleting tells how many records there were, and their bytes."""
    records = [make_record(number) for number in range(1, 8)]
    spool.insert(records)
    size = len(records[0].body)

    assert spool.delete([1, 2, 3, 6, 99]) == (4, 4 * size)
    assert spool.delete([1, 2]) == (0, 0)
    assert [record.id for record in spool.fetch(0, 10, MUCH)] == [4, 5, 7]
    assert spool.extent() == (3, 3 * size, 4, 7)
    assert spool.oldest() == min(record.accepted_at for record in records[3:])


def test_dead_letters_are_kept_listed_and_forgotten(spool: SpoolFile) -> None:
    """The newest stay, with reason, answer and time."""
    spool.letters.bury([letter(number) for number in (1, 2)], keep=3)
    spool.letters.bury([letter(number) for number in (3, 4)], keep=3)

    found = spool.letters.read()
    assert [one.record.insert_id for one in found] == ["i-2", "i-3", "i-4"]
    assert (found[0].code, found[0].message, found[0].rejected_at) == (400, "bad 2", 5)
    assert found[0].record.body == make_record(2).body
    assert spool.letters.exhume([found[0].record.id]) == 1
    assert spool.letters.count() == 2


def test_one_file_inherits_from_another(spool: SpoolFile, tmp_path: Path) -> None:
    """Dead letters and damaged records move, once, within the bound."""
    with closing(
        SpoolFile.create(tmp_path / "b.spool", "here", full_sync=False)
    ) as other:
        other.insert([make_record(1), make_record(2)])
        other.letters.bury([letter(number) for number in range(10, 15)], keep=9)
        other.quarantine([1])
        spool.letters.bury([letter(1)], keep=9)
        inherit(spool, other, keep=4)

        assert (other.letters.count(), other.quarantined()) == (0, 0)
        assert [one.record.insert_id for one in spool.letters.read()] == [
            f"i-{number}" for number in range(11, 15)
        ]
        assert spool.quarantined() == 1
        assert other.keeps  # one record waits
        other.delete([2])
        assert not other.keeps


def test_a_drained_file_gives_space_back(spool: SpoolFile, path: Path) -> None:
    """What an outage has filled is not occupied for ever."""
    spool.insert([make_record(number, size=3_000) for number in range(1, 5_001)])
    full = path.stat().st_size + Path(f"{path}-wal").stat().st_size
    spool.delete(range(1, 5_001))
    for _ in range(10):
        spool.pages.shrink()
    spool.close()

    assert full > 15_000_000
    assert path.stat().st_size < full / 2


def test_a_lock_has_one_owner(path: Path) -> None:
    """The second to ask gets nothing, until the first has let go."""
    first = SpoolLock.try_acquire(path)
    assert first is not None
    assert SpoolLock.is_held(path)
    assert SpoolLock.try_acquire(path) is None

    first.release(remove=True)
    first.release(remove=True)  # a second time does nothing
    assert not SpoolLock.is_held(path)
    second = SpoolLock.try_acquire(path)
    assert second is not None
    second.forget()
    second.forget()
    third = SpoolLock.try_acquire(path)
    assert third is not None
    third.release(remove=False)
    assert not SpoolLock.is_held(path)


def test_errors_say_what_to_do(spool: SpoolFile, path: Path) -> None:
    """A closed file, and one that cannot be made, are errors of the storage."""
    spool.close()
    with pytest.raises(StorageError, match=r"one\.spool: Cannot operate on a closed"):
        spool.extent()
    with pytest.raises(StorageError, match="make the directory writable"):
        SpoolFile.create(path.parent / "no" / "b.spool", "here", full_sync=False)
    with pytest.raises(StorageError, match="make the directory writable"):
        SpoolFile.open(path.parent / "no" / "b.spool")
