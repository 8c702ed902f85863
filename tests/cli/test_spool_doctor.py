"""The command that examines a spool and says what to do, on spools in trouble."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from amplitude_async.cli.app import app
from amplitude_async.storage import DeadLetter, Record
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import new_spool_path
from tests.cli.conftest import living

__all__: list[str] = []

HERE = "api.example 0123456789abcdef"
HOUR = 3600.0


def record(number: int = 1, *, hours: float = 0.0) -> Record:
    """Return an event that was accepted some hours ago."""
    name = f"e-{number}"
    body = json.dumps({"event_type": "Seen", "insert_id": name}).encode()
    return Record(number, body, "me", "me", None, name, time.time() - hours * HOUR)


def leave(
    directory: Path,
    records: Sequence[Record] = (),
    letters: Sequence[DeadLetter] = (),
    *,
    destination: str = HERE,
) -> Path:
    """Leave a file as a process does that is gone."""
    path = new_spool_path(directory)
    with closing(SpoolFile.create(path, destination, full_sync=False)) as file:
        file.insert(records)
        file.letters.bury(letters, 10)
    return path


def change(path: Path, *statements: str) -> None:
    """Change a file behind the back of its owner."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for one in statements:
            connection.execute(one)


def age(path: Path, hours: float) -> None:
    """Let a file look as if nobody had touched it for some hours."""
    moment = time.time() - hours * HOUR
    os.utime(path, (moment, moment))


def doctor(directory: Path, *arguments: str, width: int = 250) -> Result:
    """Run the command; it never ends in a traceback."""
    words = ["spool", "doctor", str(directory), *arguments]
    result = CliRunner().invoke(app, words, env={"COLUMNS": str(width)})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stderr == ""
    return result


def findings(directory: Path, name: str) -> list[dict[str, str]]:
    """Return what was found about one name, which is listed once."""
    result = doctor(directory, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["well"] else 1)
    (checked,) = [one for one in found["checked"] if one["name"] == name]
    found = checked["findings"]
    assert isinstance(found, list)
    return found


def trouble(directory: Path, path: Path) -> tuple[str, str]:
    """Return the one trouble with a file, and the remedy."""
    (found,) = findings(directory, path.name)
    assert found["level"] == "trouble"
    assert found["remedy"]
    return found["text"], found["remedy"]


def seen(directory: Path) -> dict[str, bytes | None]:
    """Return all that is in a directory."""
    return {
        one.name: one.read_bytes() if one.is_file() else None
        for one in directory.iterdir()
    }


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Return a directory as a service makes it."""
    directory = tmp_path / "spool"
    directory.mkdir(mode=0o700)
    return directory


# All is well -----------------------------------------------------------------


def test_a_spool_in_good_health(spool: Path) -> None:
    """Each file has its facts, nothing is asked for, and nothing was changed."""
    alive = leave(spool, [record(hours=0.5), record(2)])
    orphan = leave(spool, [record()])

    with living(alive):
        before = seen(spool)
        result = doctor(spool)
        assert seen(spool) == before

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"ok       {spool}"
    assert lines[1:4] == [
        f"ok       {alive.name}",
        f"         alive, for {HERE}",
        f"         2 events, {2 * len(record().body)} B, oldest 30.0 min",
    ]
    assert f"ok       {orphan.name}" in lines
    assert "note: 1 event is waiting to be adopted by a process" in result.stdout
    assert lines[-1] == "All is well."


def test_it_is_readable_in_a_narrow_terminal(spool: Path) -> None:
    """Sentences are broken between words, under their beginning."""
    age(leave(spool, [record()]), 3)

    lines = doctor(spool, width=60).stdout.splitlines()[2:]

    assert all(len(line) <= 60 for line in lines)
    assert lines[-5:-1] == [
        "         trouble: 1 event is waiting to be adopted by a",
        "           process, since 3.0 hours",
        "           -> start a service with this destination, or",
        "             spool export and purge",
    ]


def test_an_empty_spool_is_well(spool: Path) -> None:
    """Nothing is what a clean shutdown leaves."""
    assert doctor(spool).stdout == f"ok       {spool}\nAll is well.\n"


def test_it_reads_beside_a_writer(spool: Path) -> None:
    """A file in use is examined with what its log has, and stays as it is."""
    path = new_spool_path(spool)
    with living(path):
        file = SpoolFile.create(path, HERE, full_sync=False)
        with closing(file):
            file.insert([record()])
            result = doctor(spool, "--json")
            file.insert([record(2)])

    assert result.exit_code == 0
    (holds,) = [one["holds"] for one in json.loads(result.stdout)["checked"][1:]]
    assert (holds["events"], holds["alive"]) == (1, True)


def test_dead_letters_are_no_trouble(spool: Path) -> None:
    """They were asked for; the line says how to see and send them."""
    path = leave(spool, [], [DeadLetter(record(), 400, "bad", 1.0)])

    (found,) = findings(spool, path.name)

    assert (found["level"], found["text"]) == ("note", "dead letters: 1")
    assert "spool retry" in found["remedy"]


# What needs a person ---------------------------------------------------------


def test_an_orphan_that_nobody_adopts(spool: Path) -> None:
    """After ten minutes no process is going to."""
    path = leave(spool, [record(), record(2)])
    age(path, 3)
    # Who only looks leaves an empty log.
    CliRunner().invoke(app, ["spool", "status", str(spool)])

    text, remedy = trouble(spool, path)

    assert text == "2 events are waiting to be adopted by a process, since 3.0 hours"
    assert "start a service with this destination" in remedy
    assert "1 of 2 needs a person." in doctor(spool).stdout


def test_a_process_that_gets_rid_of_nothing(spool: Path) -> None:
    """An hour is longer than trouble that passes by itself."""
    path = leave(spool, [record(hours=2)])
    with living(path):
        text, remedy = trouble(spool, path)

    assert "oldest event for 2.0 hours" in text
    assert "log" in remedy


def test_events_that_are_about_to_be_given_up(spool: Path) -> None:
    """Told a day before."""
    path = leave(spool, [record(hours=24 * 5.5)])

    found = findings(spool, path.name)

    assert any("5.5 days old" in one["text"] for one in found)


def test_damaged_and_quarantined_events(spool: Path) -> None:
    """Counted apart: the latter a service has set aside already."""
    path = leave(spool, [record(), record(2), record(3)])
    change(path, "UPDATE events SET body = x'00' WHERE id < 3")
    assert "2 events are damaged" in findings(spool, path.name)[0]["text"]

    change(
        path,
        "INSERT INTO quarantine SELECT * FROM events WHERE id < 3",
        "DELETE FROM events",
    )
    text, _ = trouble(spool, path)
    assert "2 events are damaged and set aside inside it" in text


@pytest.mark.parametrize("page", range(1, 16))
def test_a_damaged_page(spool: Path, page: int) -> None:
    """The check of all pages finds it, wherever it is."""
    path = leave(spool, [record(number) for number in range(1, 500)])
    content = bytearray(path.read_bytes())
    content[page * 4096 : (page + 1) * 4096] = b"\xff" * 4096
    path.write_bytes(content)

    first, *_ = findings(spool, path.name)

    assert first["level"] == "trouble"
    assert "damaged" in first["text"] or "malformed" in first["text"]
    assert "check the disk" in first["remedy"]


def test_a_file_without_a_destination(spool: Path) -> None:
    """No process ever sends from it."""
    path = leave(spool, destination="")

    assert "for whom" in trouble(spool, path)[0]


def test_rights(spool: Path) -> None:
    """Who else may read events or plant them, and how to forbid it."""
    path = leave(spool)
    path.chmod(0o644)
    spool.chmod(0o777)

    text, remedy = trouble(spool, path)
    assert "mode 0644" in text
    assert remedy == f"chmod 600 {path}"
    (found,) = findings(spool, str(spool))
    assert "mode 0777" in found["text"]
    assert found["remedy"] == f"chmod 700 {spool}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user(spool: Path) -> None:
    """It may have been planted."""
    path = leave(spool)
    os.chown(path, 65534, -1)

    assert "belongs to user 65534" in trouble(spool, path)[0]


def test_a_full_disk(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told while there is still room to delete."""
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000_000)
    )

    (found,) = findings(spool, str(spool))

    assert "50 MB left" in found["text"]


def test_names_that_lost_their_other_half(spool: Path) -> None:
    """A lock alone is harmless, unless it is held; a log alone is a loss."""
    (spool / "a.lock").touch()
    (spool / "maintenance.lock").touch()
    (spool / "c.spool-wal").touch()
    (spool / "d.corrupt").touch()
    (spool / "d.corrupt-wal").touch()
    (spool / "notes.txt").touch()

    assert findings(spool, "a.lock")[0]["level"] == "note"
    assert findings(spool, "maintenance.lock")[0]["level"] == "note"
    assert findings(spool, "notes.txt")[0]["level"] == "note"
    assert "is gone" in findings(spool, "c.spool-wal")[0]["text"]
    assert "set aside" in findings(spool, "d.corrupt")[0]["text"]
    assert "d.corrupt-wal" not in doctor(spool).stdout
    with living(spool / "b.spool"):
        (found,) = findings(spool, "b.lock")
    assert (found["level"], "restart" in found["remedy"]) == ("trouble", True)


# Strangers -------------------------------------------------------------------


def _newer(path: Path) -> None:
    change(path, "UPDATE meta SET value = '99' WHERE key = 'schema'")


def _endless(path: Path) -> None:
    change(
        path,
        "DROP TABLE events",
        "CREATE VIEW events AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1"
        " FROM n) SELECT i AS id FROM n",
    )


def _endless_meta(path: Path) -> None:
    change(
        path,
        "DROP TABLE meta",
        "CREATE VIEW meta AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1"
        " FROM n) SELECT i AS key, i AS value FROM n",
    )


def _linked(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def _replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.write_bytes(b"no database" * 1_000), "not a database"),
        (_newer, "schema 99"),
        (_endless, "holds the view 'events'"),
        (_endless_meta, "table meta is not as it was made"),
        (
            lambda path: change(
                path,
                "CREATE TRIGGER again AFTER DELETE ON events BEGIN INSERT INTO events"
                " SELECT * FROM quarantine; END",
            ),
            "holds the trigger 'again'",
        ),
        (
            lambda path: change(path, 'CREATE TABLE "\x1b[2J" (a)'),
            "holds the table ",
        ),
        (
            lambda path: change(path, "DROP TABLE events"),
            "events is not as it was",
        ),
        (_linked, "is a link"),
        (lambda path: path.with_suffix(".lock").symlink_to("x"), "is a link"),
        (_replaced(Path.mkdir), "is a directory"),
        (_replaced(os.mkfifo), "is no regular file"),
        (lambda path: os.mkfifo(path.with_suffix(".lock")), "is no regular file"),
    ],
)
def test_a_stranger_gets_a_line(
    spool: Path, harm: Callable[[Path], None], says: str
) -> None:
    """Whatever it is, it is named, hides no other and takes no time."""
    path = leave(spool, [record()])
    harm(path)
    other = leave(spool, [record()])
    began = time.monotonic()

    text, _ = trouble(spool, path)
    assert says in text
    result = doctor(spool)
    assert f"TROUBLE  {path.name}" in result.stdout
    assert f"ok       {other.name}" in result.stdout
    assert all(one.isprintable() for one in result.stdout.replace("\n", ""))
    assert time.monotonic() - began < 5.0


def test_an_unfinished_file_is_no_trouble(spool: Path) -> None:
    """Its process died as it made it; the next one takes it away."""
    path = new_spool_path(spool)
    path.touch(0o600)

    assert findings(spool, path.name)[0]["level"] == "note"


def test_a_large_file_takes_so_long_and_no_longer(spool: Path) -> None:
    """What could not be read whole is said, and blames nobody."""
    path = leave(spool)
    change(
        path,
        "INSERT INTO events WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1"
        " FROM n WHERE i < 100000) SELECT i, zeroblob(900), 'me', 'me', NULL, i, 1.0, 0"
        " FROM n",
    )
    began = time.monotonic()

    result = doctor(spool, "--seconds", "0.1")

    assert time.monotonic() - began < 3.0
    assert "could not be read whole in 0.1 s" in result.stdout


def test_a_file_that_may_not_be_read() -> None:
    """The line says as whom to run the command."""
    program = (
        "import os, sys\n"
        "from amplitude_async.cli.app import app\n"
        # For root no mode means anything.
        "os.getuid() or os.setuid(65534)\n"
        "app(['spool', 'doctor', sys.argv[1]])\n"
    )
    # Not tmp_path: the folders above that one are closed to others.
    with TemporaryDirectory() as folder:
        spool = Path(folder)
        leave(spool, [record()]).chmod(0o000)
        spool.chmod(0o755)
        finished = subprocess.run(
            [sys.executable, "-c", program, folder],
            # A measured process would want to write where it may not.
            env={k: v for k, v in os.environ.items() if "COVERAGE" not in k},
            capture_output=True,
            check=False,
            text=True,
            timeout=100.0,
        )

    assert (finished.returncode, finished.stderr) == (1, "")
    assert "cannot be read: unable to open database file" in finished.stdout
    assert "run the command as the user" in finished.stdout
