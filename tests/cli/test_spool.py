"""The commands that look into a spool, on spools that real processes left."""

import asyncio
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from amplitude_async import Amplitude
from amplitude_async.cli.app import app
from amplitude_async.emulator import Emulator
from amplitude_async.storage import DeadLetter, Record, SQLiteStorage
from amplitude_async.storage.spool.directory import SpoolDirectory
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import new_spool_path
from tests.cli.conftest import living

__all__: list[str] = []

HERE = "api.example 0123456789abcdef"
ELSEWHERE = "eu.example 0123456789abcdef"
HOUR = 3600.0
WIDE = {"COLUMNS": "250"}


def record(name: str, *, hours: float = 0.0, body: bytes | None = None) -> Record:
    """Return an event that was accepted some hours ago."""
    if body is None:
        event = {"event_type": "Seen", "user_id": "user-1", "insert_id": name}
        body = json.dumps(event).encode()
    number = int(name.rpartition("-")[2])
    return Record(
        number, body, "identity", "user-1", None, name, time.time() - hours * HOUR
    )


def letter(name: str, *, hours: float = 0.0) -> DeadLetter:
    """Return a rejected event."""
    rejected_at = time.time() - hours * HOUR
    return DeadLetter(record(name, hours=hours), 400, "bad \x1b[31m field", rejected_at)


def leave(
    directory: Path,
    records: Sequence[Record] = (),
    letters: Sequence[DeadLetter] = (),
    *,
    destination: str = HERE,
) -> Path:
    """Leave a file as a process does that is gone."""
    directory.mkdir(exist_ok=True)
    path = new_spool_path(directory)
    file = SpoolFile.create(path, destination, full_sync=False)
    file.insert(records)
    file.letters.bury(letters, 10_000)
    file.close()
    return path


def run(*arguments: object, answer: str | None = None) -> Result:
    """Run a command."""
    words = ["spool", *(str(one) for one in arguments)]
    return CliRunner().invoke(app, words, input=answer, env=WIDE)


def read_json(*arguments: object) -> Any:
    """Run a command that succeeds and prints JSON."""
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def total(directory: Path) -> tuple[int, int]:
    """Count events and dead letters as `status` does."""
    found = read_json("status", directory)["total"]
    return found["events"], found["dead_letters"]


def spoil(path: Path) -> None:
    """Change one byte of the first event's body behind the checksum's back."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE events SET body = x'00' WHERE id = 1")
    connection.close()


def make_version_one(path: Path) -> None:
    """Turn a file into one of the first version, which had no dead letters."""
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE dead_letters")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    connection.close()


# status ----------------------------------------------------------------------


def test_status_tells_what_each_file_holds(tmp_path: Path) -> None:
    """Owner, destination, events, bytes, age and dead letters, and their sums."""
    gone = leave(tmp_path, [record("e-1", hours=2), record("e-2")], [letter("d-1")])
    live = leave(tmp_path, [record("e-1")], destination=ELSEWHERE)

    with living(live):
        found = read_json("status", tmp_path)

    first, second = found["files"]
    assert (first["name"], first["alive"], first["destination"]) == (
        gone.name,
        False,
        HERE,
    )
    assert (first["events"], first["dead_letters"], first["quarantined"]) == (2, 1, 0)
    assert first["bytes"] == 2 * len(record("e-1").body)
    assert first["oldest"].endswith("Z")
    assert (second["alive"], second["destination"]) == (True, ELSEWHERE)
    assert found["total"]["events"] == 3
    assert (found["total"]["files"], found["total"]["alive"]) == (2, 1)
    assert found["total"]["oldest"] == first["oldest"]


def test_status_prints_a_table(tmp_path: Path) -> None:
    """People see owner and age at a glance, and a sum below."""
    leave(tmp_path, [record("e-1", hours=50)])
    with living(leave(tmp_path, [record("e-1", hours=0.5), record("e-2")])):
        result = run("status", tmp_path)

    assert result.exit_code == 0
    for text in ("orphan", "alive", HERE, "2.1 d", "30.0 min", "sum"):
        assert text in result.stdout


def test_status_is_readable_in_a_narrow_terminal(tmp_path: Path) -> None:
    """No number is broken and no name cut in 60 columns; sums stand below."""
    first = leave(tmp_path, [record("e-1", hours=50)], [letter("d-1")])
    second = leave(
        tmp_path,
        [record(f"e-{number}", hours=0.5) for number in range(1, 1_235)],
        destination="api2.amplitude.com 0123456789abcdef",
    )

    with living(second):
        words = ["spool", "status", str(tmp_path)]
        result = CliRunner().invoke(app, words, env={"COLUMNS": "60"})

    assert result.stdout.splitlines() == [
        first.name,
        f"  orphan, for {HERE}",
        "  1 event, 63 B, oldest 2.1 d",
        "  1 dead letter, 0 damaged",
        second.name,
        "  alive, for api2.amplitude.com 0123456789abcdef",
        "  1,234 events, 80.3 kB, oldest 30.0 min",
        "  0 dead letters, 0 damaged",
        "sum of 2 files",
        "  1,235 events, 80.4 kB, oldest 2.1 d",
        "  1 dead letter, 0 damaged",
    ]
    assert all(len(line) <= 60 for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("size", "shown"), [(10, "10 B"), (1_500, "1.5 kB"), (2_500_000, "2.5 MB")]
)
def test_sizes_are_for_people(tmp_path: Path, size: int, shown: str) -> None:
    """Bytes are counted in units that can be read."""
    leave(tmp_path, [record("e-1", body=b'"%b"' % (b"x" * (size - 2)))])

    assert shown in run("status", tmp_path).stdout


def test_an_empty_spool_is_no_error(tmp_path: Path) -> None:
    """After a clean shutdown nothing is left, and that is good news."""
    result = run("status", tmp_path)

    assert (result.exit_code, result.stdout) == (
        0,
        "The spool is empty: nothing waits in it.\n",
    )
    (tmp_path / "left-over.lock").touch()
    assert total(tmp_path) == (0, 0)
    assert run("list", tmp_path).stdout == "No events wait.\n"
    assert run("list", tmp_path, "--dead").stdout == "No dead letters.\n"


def test_status_leaves_damage_where_it_is(tmp_path: Path) -> None:
    """A damaged event is the service's to set aside; a file set aside is named."""
    path = leave(tmp_path, [record("e-1"), record("e-2")])
    spoil(path)
    (tmp_path / "old.corrupt").write_bytes(b"?")

    assert total(tmp_path) == (2, 0)
    result = run("status", tmp_path)
    assert "old.corrupt was damaged and is set aside" in result.stdout
    assert "damaged" in run("list", tmp_path).stdout
    lines = run("export", tmp_path).stdout.splitlines()
    assert [json.loads(one)["body"] is None for one in lines] == [True, False]
    assert total(tmp_path) == (2, 0)


def test_a_file_that_is_no_spool_hinders_nothing(tmp_path: Path) -> None:
    """The others are shown, the bad one is named, and the exit code is 1."""
    leave(tmp_path, [record("e-1")])
    bad = tmp_path / "9999999999999-1-00000000.spool"
    bad.write_bytes(b"this is no database at all" * 100)

    result = run("status", tmp_path)

    assert result.exit_code == 1
    assert HERE in result.stdout
    assert str(bad) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_file_that_may_not_be_opened_is_named(tmp_path: Path) -> None:
    """What the system forbids is told like any other trouble with a file."""
    path = leave(tmp_path, [record("e-1")])
    # A link to itself refuses even root, for whom modes mean nothing.
    lock = path.with_suffix(".lock")
    lock.symlink_to(lock)

    result = run("status", tmp_path)

    assert result.exit_code == 1
    assert "run the command as the file's owner" in result.stderr


@pytest.mark.parametrize(
    "command", ["status", "list", "export", "retry", "purge --yes", "doctor"]
)
def test_a_pipe_keeps_no_command_waiting(tmp_path: Path, command: str) -> None:
    """What is named like a spool and is none is told, and the others are served."""
    pipe = tmp_path / "0.spool"
    os.mkfifo(pipe)
    (tmp_path / "1.spool").mkdir()
    leave(tmp_path, [record("e-1")])
    os.mkfifo(leave(tmp_path, [record("e-2")]).with_suffix(".lock"))

    result = run(*command.split(), tmp_path)

    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "0.spool" in result.output
    assert "1.spool" in result.output


def test_a_file_that_vanishes_is_no_problem(tmp_path: Path) -> None:
    """A service may finish a file between a look at the names and one inside."""
    (tmp_path / "gone.spool").symlink_to(tmp_path / "nowhere")

    assert total(tmp_path) == (0, 0)
    assert read_json("purge", tmp_path, "--yes")["in_use"] == 0


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    """The message says which version to use."""
    path = leave(tmp_path, [record("e-1")])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    connection.close()

    for command in (["status"], ["list"], ["export"], ["purge", "--yes"]):
        result = run(*command, tmp_path)
        assert result.exit_code == 1
        assert "schema 99" in result.stderr


def test_a_file_of_the_first_version_can_be_read(tmp_path: Path) -> None:
    """It has no dead letters, and reading it does not upgrade it."""
    path = leave(tmp_path, [record("e-1")])
    make_version_one(path)
    before = path.read_bytes()

    assert total(tmp_path) == (1, 0)
    assert read_json("list", tmp_path, "--dead") == {"items": [], "more": 0}
    assert read_json("retry", tmp_path)["moved"] == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "command", ["status", "list", "export", "retry", "purge", "doctor"]
)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.touch(), "is a file"),
        (lambda path: (path.mkdir(), (path / "letter.txt").touch()), "holds no spool"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
def test_what_is_no_spool_is_refused(
    tmp_path: Path, command: str, make: Any, reason: str
) -> None:
    """One clear line and 2, whatever the command."""
    path = tmp_path / "spool"
    make(path)

    result = run(command, path)

    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr
    assert str(path) in result.stderr
    assert len(result.stderr.splitlines()) == 1


# list and export -------------------------------------------------------------


def test_list_shows_events_without_their_bodies(tmp_path: Path) -> None:
    """What people sent is shown only when asked for."""
    leave(tmp_path, [record("e-1"), record("e-2"), record("e-3")])

    shown = run("list", tmp_path, "--limit", "2").stdout
    assert "e-1" in shown
    assert "user-1" in shown
    assert '"event_type"' not in shown
    assert "and 1 more" in shown
    assert '"event_type"' in run("list", tmp_path, "--body").stdout

    found = read_json("list", tmp_path, "--limit", "2")
    assert [one["insert_id"] for one in found["items"]] == ["e-1", "e-2"]
    assert "body" not in found["items"][0]
    assert found["more"] == 1
    with_body = read_json("list", tmp_path, "--body")["items"][2]
    assert with_body["body"] == {
        "event_type": "Seen",
        "user_id": "user-1",
        "insert_id": "e-3",
    }


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"event_type": "Order Paid"}', "Order Paid"),
        (
            b'{"events": [{"data": {"event_name": "Bought"}}, {"event_type": "end"}]}',
            "Bought and 1 more",
        ),
        (
            b'{"events": [{"event_type": "x", "data": {"screen_name": "Cart"}}]}',
            "Cart",
        ),
        (b'{"events": [{"event_type": "session_end"}]}', "session_end"),
        (b'{"events": []}', None),
        (b'{"events": [1]}', None),
        (b'{"event_type": 1}', None),
        (b"[]", None),
        (b"no JSON", None),
        (b'"\xff"', None),
        (b"[" * 100_000, None),
    ],
)
def test_list_shows_the_event_type(
    tmp_path: Path, body: bytes, shown: str | None
) -> None:
    """Of both vendors, and nothing where a body does not say."""
    leave(tmp_path, [record("e-1", body=body)], [DeadLetter(record("d-1"), 1, "", 1.0)])

    (found,) = read_json("list", tmp_path)["items"]
    assert found["event_type"] == shown
    row = run("list", tmp_path).stdout.splitlines()[4]
    assert row.split("│")[2].strip() == (shown or "-")
    assert "Seen" in run("list", tmp_path, "--dead").stdout
    (line,) = run("export", tmp_path).stdout.splitlines()
    assert json.loads(line)["event_type"] == shown


HOSTILE = "\x1b[2J\x9b1m\u202e\x7f\r\n"


def test_nothing_from_a_file_steers_the_terminal(tmp_path: Path) -> None:
    """Control characters in names, columns and bodies are shown as what they are."""
    body = json.dumps({"event_type": HOSTILE, "user_id": "\\"}, ensure_ascii=False)
    # Between tokens JSON allows line breaks; in a string a C1 character may stand raw.
    raw = body.replace("\x1b", "\\u001b").replace(",", ",\n").encode()
    hurt = record("e-1", body=raw)._replace(insert_id=HOSTILE, user_id=HOSTILE)
    rejected = DeadLetter(hurt, 400, HOSTILE, time.time())
    path = leave(tmp_path, [hurt], [rejected], destination=HOSTILE)
    path.rename(path.with_name(f"{HOSTILE}.spool"))
    (tmp_path / f"{HOSTILE}2.spool").write_bytes(b"?" * 5_000)
    (tmp_path / f"{HOSTILE}.corrupt").touch()

    for command in ("status", "list", "list --dead", "list --body", "export", "purge"):
        for extra in ("", "--json"):
            if command == "export" and extra:
                continue
            result = run(*command.split(), tmp_path, *extra.split(), answer="n\n")
            text = result.output.replace("\n", "")
            assert all(one.isprintable() for one in text), command
            assert result.exit_code == 1  # for the second file
    (line,) = run("export", tmp_path).stdout.splitlines()
    assert json.loads(line)["body"] == json.loads(raw)


def test_a_row_of_any_types_hinders_nothing(tmp_path: Path) -> None:
    """SQLite takes any value in any column; no command ends in a traceback."""
    path = leave(tmp_path, [record("e-1"), record("e-2")], [letter("d-1")])
    leave(tmp_path, [record("e-3")])
    with closing(sqlite3.connect(path)) as owner, owner:
        owner.execute(
            "UPDATE events SET accepted_at = 'never', user_id = x'00', identity = 5"
            " WHERE id = 1"
        )
        owner.execute(
            "UPDATE dead_letters SET body = 'text', rejected_at = 1e300, code = 'x',"
            " message = x'ff', user_id = 1.5"
        )

    for command in ("status", "list", "list --dead", "export", "export --dead"):
        result = run(*command.split(), tmp_path)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
    assert "e-3" in run("list", tmp_path).stdout
    (found,) = read_json("list", tmp_path, "--dead")["items"]
    assert (found["rejected_at"], found["bytes"]) == (None, 0)


def test_list_shows_dead_letters_and_why(tmp_path: Path) -> None:
    """Code, reason and time of the verdict; nothing in it can steer the terminal."""
    leave(tmp_path, [record("e-1")], [letter("d-1", hours=1)])

    shown = run("list", tmp_path, "--dead").stdout
    assert "400" in shown
    assert r"bad \x1b[31m field" in shown
    assert "\x1b" not in shown
    assert "e-1" not in shown

    (found,) = read_json("list", tmp_path, "--dead")["items"]
    assert (found["insert_id"], found["code"]) == ("d-1", 400)
    assert found["reason"] == "bad \x1b[31m field"
    assert found["rejected_at"].endswith("Z")


def test_export_writes_lines_of_json(tmp_path: Path) -> None:
    """The body is JSON in JSON, with every digit it had on the wire."""
    exact = b'{"price": 0.1000000000000000000001}'
    leave(tmp_path, [record("e-1", body=exact), record("e-2")], [letter("d-1")])

    first, second = run("export", tmp_path).stdout.splitlines()
    assert exact.decode() in first
    assert json.loads(first)["insert_id"] == "e-1"
    assert json.loads(second)["body"]["event_type"] == "Seen"
    (dead,) = run("export", tmp_path, "--dead").stdout.splitlines()
    assert (json.loads(dead)["insert_id"], json.loads(dead)["code"]) == ("d-1", 400)
    assert total(tmp_path) == (2, 1)


def test_export_writes_a_file_for_its_user_alone(tmp_path: Path) -> None:
    """The file is new, complete and readable by nobody else."""
    spool, output = tmp_path / "spool", tmp_path / "events.jsonl"
    leave(spool, [record("e-1"), record("e-2")], [letter("d-1")])

    result = run("export", spool, "--output", output)

    assert (result.exit_code, result.stdout) == (0, f"2 written to {output}\n")
    assert len(output.read_text().splitlines()) == 2
    assert output.stat().st_mode & 0o777 == 0o600
    assert (
        "1 written" in run("export", spool, "--dead", "--output", f"{output}2").stdout
    )


def test_export_overwrites_nothing(tmp_path: Path) -> None:
    """An existing file and a missing folder are refused in one line."""
    spool = tmp_path / "spool"
    leave(spool, [record("e-1")])
    taken = tmp_path / "taken"
    taken.write_text("mine")

    result = run("export", spool, "--output", taken)
    assert (result.exit_code, taken.read_text()) == (2, "mine")
    assert "choose a new name" in result.stderr
    result = run("export", spool, "--output", tmp_path / "no" / "where")
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_export_to_a_full_disk_says_so(tmp_path: Path) -> None:
    """What was written is called incomplete, and there is no traceback."""
    spool = tmp_path / "spool"
    leave(spool, [record("e-1", body=b'{"x":"%b"}' % (b"x" * 400_000))])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        result = run("export", spool, "--output", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert result.exit_code == 2
    assert "out is incomplete: File too large" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def log_is_cut_back(owner: sqlite3.Connection, path: Path) -> bool:
    """Let the owner of a file cut back its log; False where a reader forbids it."""
    busy, *_ = owner.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy and not Path(f"{path}-wal").stat().st_size


@pytest.mark.parametrize("dead", [False, True])
def test_a_reader_that_stalls_holds_no_snapshot(tmp_path: Path, *, dead: bool) -> None:
    """Wherever it stops, the owner can cut back its log; all is read even so."""
    count = 1_200
    path = leave(
        tmp_path,
        [] if dead else [record(f"e-{number}") for number in range(1, count + 1)],
        [letter(f"e-{number}") for number in range(1, count + 1)] if dead else [],
    )
    items = SpoolDirectory(tmp_path).items(dead=dead)
    seen = []
    with living(path), closing(sqlite3.connect(path, timeout=0.1)) as owner:
        for item in items:
            seen.append(item.record.insert_id)
            if len(seen) % 250 == 1:
                with owner:
                    owner.execute("INSERT INTO meta VALUES (?, '')", (str(len(seen)),))
                assert log_is_cut_back(owner, path)

    assert seen == [f"e-{number}" for number in range(1, count + 1)]


def test_an_export_ends_beside_a_fast_writer(tmp_path: Path) -> None:
    """What is written after it has begun is not waited for."""
    path = leave(tmp_path, [record(f"e-{number}") for number in range(1, 601)])
    items = SpoolDirectory(tmp_path).items(dead=False)
    next(items)
    with closing(sqlite3.connect(path)) as owner, owner:
        owner.execute(
            "INSERT INTO events SELECT id + 1000, body, identity, user_id, device_id,"
            " insert_id, accepted_at, checksum FROM events"
        )

    assert sum(1 for _ in items) == 599


def test_an_unread_export_lets_the_log_be_cut_back(tmp_path: Path) -> None:
    """A pipe that nobody reads stops the command and harms no service."""
    body = b'{"x": "%b"}' % (b"x" * 2_000)
    path = leave(tmp_path, [record(f"e-{n}", body=body) for n in range(1, 1_001)])
    program = "from amplitude_async.cli.app import app; app()"
    with (
        living(path),
        closing(sqlite3.connect(path, timeout=0.1)) as owner,
        subprocess.Popen(
            [sys.executable, "-c", program, "spool", "export", str(tmp_path)],
            stdout=subprocess.PIPE,
        ) as exporting,
    ):
        assert exporting.stdout
        # It has begun, and the pipe is full before the second slice.
        first = exporting.stdout.readline()
        try:
            time.sleep(0.2)
            with owner:
                owner.execute("UPDATE meta SET value = value")
            assert log_is_cut_back(owner, path)
        finally:
            rest = exporting.stdout.readlines()

    assert [json.loads(one)["insert_id"] for one in (first, *rest)] == [
        f"e-{n}" for n in range(1, 1_001)
    ]
    assert exporting.returncode == 0


# retry -----------------------------------------------------------------------


async def deliver(spool: Path, emulator: Emulator, key: str = "key") -> list[str]:
    """Run a service on a spool to its end; return what the server has."""
    client = Amplitude(
        key,
        server_url=emulator.httpapi_url,
        storage=SQLiteStorage(spool),
        trust_env=False,
    )
    async with client:
        await client.flush()
    return [event["insert_id"] for event in emulator.events]


async def destination_of(spool: Path, emulator: Emulator) -> str:
    """Return what a service writes into its files."""
    storage = SQLiteStorage(spool)
    client = Amplitude(
        "key", server_url=emulator.httpapi_url, storage=storage, trust_env=False
    )
    async with client:
        (status,) = await asyncio.to_thread(SpoolDirectory(spool).status)
    return status.destination


@pytest.mark.allow_blocking  # the commands run here instead of in a shell
async def test_a_retried_dead_letter_is_sent_again(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The next process of that destination sends it; one with another key does not."""
    here = await destination_of(tmp_path, emulator)
    # Older than a service would still send under its old age.
    leave(tmp_path, [], [letter("d-1", hours=500)], destination=here)

    result = run("retry", tmp_path)
    assert (result.exit_code, result.stdout) == (
        0,
        "1 dead letter will be sent again\n",
    )
    assert total(tmp_path) == (1, 0)

    assert await deliver(tmp_path, emulator, key="another key") == []
    assert total(tmp_path) == (1, 0)
    assert await deliver(tmp_path, emulator) == ["d-1"]
    assert total(tmp_path) == (0, 0)


def test_retry_sorts_by_destination(tmp_path: Path) -> None:
    """Dead letters of two projects go into two new files, and emptied ones vanish."""
    leave(tmp_path, [], [letter("d-1"), letter("d-2")])
    leave(tmp_path, [], [letter("d-3")], destination=ELSEWHERE)
    kept = leave(tmp_path, [record("e-1")], [letter("d-1")])

    found = read_json("retry", tmp_path)

    assert found["moved"] == 4
    files = {one["name"]: one for one in read_json("status", tmp_path)["files"]}
    assert set(files) == {kept.name, *found["files"]}
    assert [files[one]["events"] for one in found["files"]] == [3, 1]
    assert [files[one]["destination"] for one in found["files"]] == [HERE, ELSEWHERE]
    assert {one["insert_id"] for one in read_json("list", tmp_path)["items"]} == {
        "d-1",
        "d-2",
        "d-3",
        "e-1",
    }


def test_retry_takes_what_is_asked_for(tmp_path: Path) -> None:
    """Chosen ids only; one that is not there is told, with 1."""
    leave(tmp_path, [], [letter("d-1"), letter("d-2"), letter("d-3")])

    arguments = ("--insert-id", "d-2", "--insert-id", "d-9")
    result = run("retry", tmp_path, *arguments)

    assert result.exit_code == 1
    assert "'d-9'" in result.stderr
    assert "1 dead letter will be sent again" in result.stdout
    assert total(tmp_path) == (1, 2)


def test_retry_leaves_the_events_of_a_living_process(tmp_path: Path) -> None:
    """Its dead letters move, its events do not, and its file stays."""
    path = leave(tmp_path, [], [letter("d-1")])

    with living(path):
        assert read_json("retry", tmp_path)["moved"] == 1
        assert path.exists()
        assert total(tmp_path) == (1, 0)


def test_one_command_changes_a_spool_at_a_time(tmp_path: Path) -> None:
    """Two retries at once would send everything twice."""
    leave(tmp_path, [], [letter("d-1")])

    with living(tmp_path / "maintenance"):
        result = run("retry", tmp_path)

    assert result.exit_code == 2
    assert "another command is changing" in result.stderr
    assert total(tmp_path) == (0, 1)


def test_a_spool_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The line says as whom to run the command."""
    leave(tmp_path, [], [letter("d-1")])
    (tmp_path / "maintenance.lock").mkdir()

    result = run("retry", tmp_path)

    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_a_read_only_directory_can_be_read() -> None:
    """Looking needs no right to write."""
    program = (
        "import os, sys\n"
        "from amplitude_async.storage.spool.directory import SpoolDirectory\n"
        "from pathlib import Path\n"
        # For root no mode means anything.
        "os.getuid() or os.setuid(65534)\n"
        "spool = SpoolDirectory(Path(sys.argv[1]))\n"
        "print(*[one.events for one in spool.status()], *spool.problems)"
    )
    # Not tmp_path: the folders above that one are closed to others.
    with TemporaryDirectory() as folder:
        spool = Path(folder)
        leave(spool, [record("e-1")]).chmod(0o644)
        spool.chmod(0o555)
        finished = subprocess.run(
            [sys.executable, "-c", program, folder],
            # A measured process would want to write where it may not.
            env={k: v for k, v in os.environ.items() if "COVERAGE" not in k},
            capture_output=True,
            check=False,
            text=True,
            timeout=100.0,
        )
        spool.chmod(0o755)

    assert (finished.stdout, finished.stderr) == ("1\n", "")


# purge -----------------------------------------------------------------------


def test_purge_deletes_the_events_of_processes_that_are_gone(tmp_path: Path) -> None:
    """Events of a living process and dead letters stay; an emptied file goes."""
    empty = leave(tmp_path, [record("e-1"), record("e-2")])
    leave(tmp_path, [record("e-1")], [letter("d-1")])
    live = leave(tmp_path, [record("e-1")])

    with living(live):
        result = run("purge", tmp_path, answer="y\n")
        assert result.exit_code == 0
        assert "Delete 3 events in 2 files" in result.stderr
        assert "3 events in 2 files deleted" in result.stdout
        assert "in use by a process: 1 file" in result.stdout
        assert total(tmp_path) == (1, 1)
    assert not empty.exists()


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_purge_asks_first(tmp_path: Path, answer: str) -> None:
    """No, and no answer at all, delete nothing, with 1."""
    leave(tmp_path, [record("e-1")])

    result = run("purge", tmp_path, answer=answer)

    assert result.exit_code == 1
    assert total(tmp_path) == (1, 0)


def test_purge_deletes_dead_letters_of_every_file(tmp_path: Path) -> None:
    """Also those of a living process; events stay."""
    leave(tmp_path, [record("e-1")], [letter("d-1"), letter("d-2")])
    live = leave(tmp_path, [record("e-1")], [letter("d-1")])

    with living(live):
        found = read_json("purge", tmp_path, "--dead", "--yes")
        assert found == {"purged": 3, "files": 2, "in_use": 0}
        assert total(tmp_path) == (2, 0)


@pytest.mark.parametrize(
    ("age", "events"),
    [("90min", 1), ("1.5h", 1), ("5400", 1), ("5400s", 1), ("1d", 2), ("0", 0)],
)
def test_purge_by_age(tmp_path: Path, age: str, events: int) -> None:
    """Only what is older goes, among events and dead letters alike."""
    ages = {"e-1": 0.5, "e-2": 2.0}
    leave(
        tmp_path,
        [record(name, hours=hours) for name, hours in ages.items()],
        [letter(name, hours=hours) for name, hours in ages.items()],
    )

    run("purge", tmp_path, "--yes", "--older-than", age)
    assert total(tmp_path) == (events, 2)
    run("purge", tmp_path, "--yes", "--dead", "--older-than", age)
    assert total(tmp_path) == (events, events)


def test_an_age_that_is_none_is_refused(tmp_path: Path) -> None:
    """The message shows the value and how to write it."""
    result = run("purge", tmp_path, "--older-than", "a while")

    assert result.exit_code == 2
    assert "'a while'" in result.stderr
    assert "36h" in result.stderr


def test_a_purge_of_nothing_does_not_ask(tmp_path: Path) -> None:
    """Where nothing matches there is nothing to confirm."""
    leave(tmp_path, [], [letter("d-1")])

    result = run("purge", tmp_path)

    assert (result.exit_code, result.stdout) == (0, "0 events in 0 files deleted\n")


# A living service ------------------------------------------------------------

SERVICE = """
import asyncio, sys
from amplitude_async import Amplitude
from amplitude_async.storage import SQLiteStorage

async def main(spool, url):
    storage = SQLiteStorage(spool)
    client = Amplitude("key", server_url=url, storage=storage, trust_env=False)
    async with client:
        number = 0
        while True:
            await asyncio.gather(
                *(client.track("Seen", user_id=f"user-{i}") for i in range(20))
            )
            number += 20
            print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.allow_blocking  # the commands run here instead of in a shell
async def test_looking_does_not_disturb_a_service(
    emulator: Emulator, tmp_path: Path
) -> None:
    """Every reading command runs beside a service that tracks at full speed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        SERVICE,
        str(tmp_path),
        emulator.httpapi_url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    with ExitStack() as stack:
        stack.callback(process.kill)
        accepted = 0
        for command in ("status", "list", "export", "retry", "purge") * 2:
            accepted = int(await process.stdout.readline())
            result = await asyncio.to_thread(run, command, tmp_path)
            assert (result.exit_code, result.stderr) == (0, "")
        while accepted < 400:
            accepted = int(await process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest, complaints = await process.communicate()
        accepted = int([str(accepted).encode(), *rest.split()][-1])
        stack.pop_all()

    assert complaints == b""
    waiting = {
        one.record.insert_id for one in SpoolDirectory(tmp_path).items(dead=False)
    }
    arrived = {event["insert_id"] for event in emulator.events}
    assert len(waiting | arrived) >= accepted
