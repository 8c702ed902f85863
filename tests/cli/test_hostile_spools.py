"""No file that somebody has made crashes a spool command or steers a terminal."""

import json
import os
import random
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from amplitude_async.cli.app import app
from amplitude_async.storage import Record
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import new_spool_path

__all__: list[str] = []

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("status", "--json"),
    ("list",),
    ("list", "--body"),
    ("list", "--json", "--body"),
    ("list", "--dead"),
    ("list", "--dead", "--body"),
    ("list", "--dead", "--json", "--body"),
    ("export",),
    ("export", "--dead"),
    ("doctor",),
    ("doctor", "--json"),
    ("purge", "--yes", "--older-than", "30d"),
    ("purge", "--yes", "--dead", "--older-than", "30d", "--json"),
    ("retry", "--json"),
)
SEEDS = range(18)
# These on each interpreter, the others on one.
FEW_SEEDS = 3

# All that a terminal may take for more than text; a line ends with a newline.
STEERING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
EVIL_TEXTS = (
    "[/x]",
    "[red]",
    "[link=file:///etc/passwd]here[/link]",
    "[",
    "\\[/",
    "a\nb",
    "\r\n",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "\u202etxt.exe\u2066",
    "\u2028\u2029\x85",
    "\x00",
    "",
    "'; DROP TABLE events; --",
    "💥" * 300,
    "x" * 100_000,
    ":smile:",
)
EVIL_NUMBERS = (0, -1, 2**63 - 1, -(2**63), 1.5, 1e300, -1e300, float("inf"), None)
EVIL_BYTES = (b"", b"\xff\xfe\x00", b"[/x]", b"{}", b"\x1b[2J")
EVIL_BODIES = (
    b"",
    b"null",
    b"[]",
    b"\xff",
    b"{",
    b'{"event_type": "[/x]"}',
    b'{"event_type": "\\u001b[2J\\u202e\\ud800"}',
    b'{"event_type": ["a"], "n": NaN}',
    b'{"n": 1e400, "m": -1e400, "event_type": "e"}',
    b'{"n": Infinity}',
    b'{"n": 1' + b"0" * 5_000 + b"}",
    b'{\n"event_type":\n"two\\nlines"\r\n}',
    b'{"events": [{"data": {"event_name": "[/b]"}}, 1]}',
    b'{"events": [[]]}',
    '{"event_type": "\u2028\u0085\u202e"}'.encode(),
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"a": 1, "a": 2, "a": {"b": "' + b"x" * 50_000 + b'"}}',
)


def evil(dice: random.Random) -> Any:
    """Return any value that SQLite keeps in any column."""
    return dice.choice(dice.choice((EVIL_TEXTS, EVIL_NUMBERS, EVIL_BYTES)))


def rows_of(dice: random.Random, columns: int) -> Iterator[tuple[Any, ...]]:
    """Make rows as somebody would who wants to do harm, some of them well-formed."""
    for number in range(dice.randrange(1, 8)):
        body: Any = dice.choice(EVIL_BODIES)
        row = [body, "identity", "user-1", None, f"insert-{number}", 1.7e9]
        for place in range(1, len(row)):
            if dice.random() < 0.4:
                row[place] = dice.choice(EVIL_TEXTS) if place < 5 else evil(dice)
        row += [400, "bad", 1.7e9][: columns - len(row)]
        if columns > 7 and dice.random() < 0.6:
            row[dice.randrange(6, 9)] = evil(dice)
        if columns == 7:
            row[-1] = zlib.crc32(body)
        if dice.random() < 0.3:
            row[dice.randrange(len(row))] = evil(dice)
        yield tuple(row)


def write_rows(path: Path, dice: random.Random) -> None:
    """Fill a file with such rows; some types it refuses by itself."""
    with closing(sqlite3.connect(path)) as connection:
        for table, columns in (("events", 7), ("dead_letters", 9)):
            places = ",".join("?" * columns)
            names = [
                row[1] for row in connection.execute(f"PRAGMA table_info({table})")
            ][1:]
            for row in rows_of(dice, columns):
                connection.execute(
                    f"INSERT OR IGNORE INTO {table} ({','.join(names)}) "  # noqa: S608
                    f"VALUES ({places})",
                    row,
                )
        if dice.random() < 0.3:
            connection.execute(
                "UPDATE meta SET value = ? WHERE key = 'destination'",
                (dice.choice([*EVIL_TEXTS, b"\xff", 7, 1.5]),),
            )
        connection.commit()


def a_name(dice: random.Random) -> str:
    """Make a file name that no service would make."""
    texts = [one for one in EVIL_TEXTS if len(one) < 50 and "\0" not in one]
    text = dice.choice([*texts, "\udcff"])  # no UTF-8 on the disk
    return text.replace("/", "\u2215")


def make_spool(directory: Path, seed: int) -> None:
    """Make a directory in which nothing can be trusted."""
    dice = random.Random(seed)
    directory.mkdir(mode=0o700)
    for _ in range(dice.randrange(1, 4)):
        path = new_spool_path(directory)
        SpoolFile.create(path, "api.example 0123456789abcdef", full_sync=False).close()
        write_rows(path, dice)
        if dice.random() < 0.3:
            content = bytearray(path.read_bytes())
            for _ in range(dice.randrange(1, 40)):
                content[dice.randrange(len(content))] = dice.randrange(256)
            path.write_bytes(content)
        if dice.random() < 0.4:
            path.rename(directory / f"{a_name(dice)}{path.name[-9:]}")
    for suffix in (".spool", ".corrupt", ".lock", ".spool-wal", ""):
        if dice.random() < 0.3:
            stranger = directory / f"{a_name(dice)}x{suffix}"
            stranger.write_bytes(dice.choice((*EVIL_BYTES, *EVIL_BODIES)))
    if dice.random() < 0.2:
        os.mkfifo(directory / f"{a_name(dice)}pipe.spool")
    if dice.random() < 0.2:
        (directory / f"{a_name(dice)}link.spool").symlink_to("/etc/passwd")


def run(*words: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, ["spool", *words], env={"COLUMNS": "120"})


def refuse(name: str) -> Any:
    """Take no constant that JSON does not have."""
    raise ValueError(name)


def strictly(text: str) -> Any:
    """Read JSON as others do."""
    return json.loads(text, parse_constant=refuse)


def check(words: tuple[str, ...], result: Result) -> None:
    """See that a command said what it had to say, and nothing else."""
    trouble = result.exception
    assert trouble is None or isinstance(trouble, SystemExit), result.exc_info
    assert result.exit_code in (0, 1, 2)
    assert "Traceback" not in result.output
    assert not STEERING.search(result.stdout)
    assert not STEERING.search(result.stderr)
    if result.exit_code == 2:
        assert result.stderr.startswith("Error: ")
    elif "--json" in words:
        strictly(result.stdout)
    elif words[0] == "export":
        for line in result.stdout.splitlines():
            assert {"event_type", "insert_id", "body"} <= strictly(line).keys()
    if result.exit_code == 1 and words[0] != "doctor":
        assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    "seed",
    [pytest.param(n, marks=[pytest.mark.long] * (n >= FEW_SEEDS)) for n in SEEDS],
)
def test_every_command_survives_any_spool(tmp_path: Path, seed: int) -> None:
    """No traceback, a documented exit code, and nothing that steers a terminal."""
    directory = tmp_path / "spool"
    make_spool(directory, seed)
    for words in COMMANDS:
        check(words, run(words[0], str(directory), *words[1:]))


def test_so_many_runs_were_made() -> None:
    """As many as found the faults in the first place."""
    assert len(SEEDS) * len(COMMANDS) == 270


@pytest.mark.parametrize("command", ["status", "list", "export", "doctor", "purge"])
def test_the_name_of_a_directory_steers_nothing(tmp_path: Path, command: str) -> None:
    """An error names it in one piece, with its controls escaped."""
    result = run(command, str(tmp_path / "\x1b[2J[/x]"))
    assert result.exit_code == 2
    assert r"\x1b[2J[/x] does not exist" in result.stderr


def test_what_could_not_be_written_again_stays_text(tmp_path: Path) -> None:
    """A body whose values no JSON writer takes is shown as it is."""
    body = b'{"n": 1e400}'
    path = new_spool_path(tmp_path)
    file = SpoolFile.create(path, "api.example 0123456789abcdef", full_sync=False)
    file.insert([Record(1, body, "identity", "[/x]", None, "a\nb", time.time())])
    file.close()
    (item,) = strictly(run("list", str(tmp_path), "--json", "--body").stdout)["items"]
    assert (item["body"], item["user_id"], item["insert_id"]) == (
        body.decode(),
        "[/x]",
        "a\nb",
    )
    (line,) = run("export", str(tmp_path)).stdout.splitlines()
    assert '"body": {"n": 1e400}' in line
    assert "[/x]" in run("list", str(tmp_path)).stdout
