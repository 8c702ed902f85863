"""Kills and disk faults by turns: what the matrix in docs/spool.md promises arrives.

Real processes track into one directory and are killed at random instants. After each
kill something is done to the directory, and the next process starts on it. What may be
lost is what SQLite itself cannot read any more in a copy that is made after the fault.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.storage import SQLiteStorage
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import new_spool_path
from amplitude_async.testing.storage_contract import make_record
from tests.storage.conftest import IMPATIENT, KEY

__all__: list[str] = []

logger = logging.getLogger(__name__)

ROUNDS = int(os.environ.get("SPOOL_KILL_ROUNDS", "100"))
SEED = int(os.environ.get("SPOOL_KILL_SEED", "1"))
# A service that has not come so far by then hangs.
DEADLINE = 20.0
DISK = 64 * 1024**2
WORKERS = 6
PLANTED = "planted"
# The module reads SQLite's messages as text, and fails at those that quote damage.
UNREADABLE = (sqlite3.Error, ValueError, OverflowError)
SIDES = ("", "-wal", "-shm")

# Imports everything once and forks a process for each service, which is much faster
# than to start an interpreter for each.
NURSERY = """
import asyncio, contextlib, json, os, resource, signal, sqlite3, sys, time
import aiohttp
from amplitude_async import Amplitude
from amplitude_async.exceptions import StorageError
from amplitude_async.storage import SQLiteStorage

async def track(client, given, said, worker):
    number = 0
    while True:
        name = f"{given['name']}-{worker}-{number}"
        much = "x" * (4_000 if number % 9 == 8 else number % 50 * 10)
        await client.track(
            "e", user_id=f"user-{worker}", event_properties={"n": name, "much": much}
        )
        os.write(said, f"{name} {client.stats.durable:d}\\n".encode())
        number += 1
        if number > given["quickly"]:
            await asyncio.sleep(0.02)

async def serve(given, said):
    if given["largest"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given["largest"],) * 2)
    async with aiohttp.ClientSession(headers={"X-Service": given["name"]}) as session:
        client = Amplitude(
            given["key"],
            storage=SQLiteStorage(given["directory"]),
            session=session,
            **given["options"],
        )
        try:
            await client.start()
        except StorageError as error:
            os.write(said, f"refused {error}\\n".encode())
            return
        working = asyncio.gather(*(track(client, given, said, w) for w in range(6)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        # Told last: from here on a signal ends it as it should.
        os.write(said, b"started\\n")
        with contextlib.suppress(asyncio.CancelledError):
            await working
        await client.shutdown()
    os.write(said, b"ended\\n")

def hold(given, said):
    connection = sqlite3.connect(given["hold"], isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    os.write(said, b"started\\n")
    time.sleep(given["seconds"])
    # Without closing, which would fold the log into the file.
    os._exit(0)

for line in sys.stdin:
    given = json.loads(line)
    if "wait" in given:
        print(os.waitstatus_to_exitcode(os.waitpid(given["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    said = os.open(given["says"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if "hold" in given:
        hold(given, said)
    asyncio.run(serve(given, said))
    os._exit(0)
"""

MOODS = {
    "well": [],
    "failing": [Fault(500, rate=0.5, count=None)],
    "cut": [
        Fault(hang_up="before", rate=0.3, count=None),
        Fault(hang_up="after", rate=0.3, count=None),
    ],
    "down": [Fault(503, count=None)],
}


@dataclass
class Process:
    """A process that was forked for us, and where it writes what it has to say."""

    name: str
    pid: int
    says: Path
    may_fail: bool = False
    """Whether a full disk may make it refuse to start or keep events in memory."""
    died_at: float = math.inf
    lost_lock: bool = False
    """Whether another process may send its events as well."""

    def lines(self) -> list[str]:
        """Return what it has said so far."""
        try:
            return self.says.read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def accepted(self) -> list[tuple[str, bool]]:
        """Return the names of accepted events, and whether each was on the disk."""
        said = [line.split() for line in self.lines() if line.startswith(self.name)]
        return [(name, durable == "1") for name, durable in said]


class Content(NamedTuple):
    """What SQLite can read of a file."""

    frame: frozenset[tuple[Any, ...]] = frozenset()
    """For whom the events are, and how their tables were made; empty: unreadable."""
    rows: Mapping[int, tuple[Any, ...]] = MappingProxyType({})


@dataclass(repr=False)
class Storm:
    """One directory, those who use it, and what may be lost of their events."""

    directory: Path
    scratch: Path
    dice: random.Random
    small: bool
    """Whether the directory is a small disk of its own."""
    alive: list[Process] = field(default_factory=list)
    gone: list[Process] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)
    """Events that SQLite could not read any more after a fault."""
    torn: set[str] = field(default_factory=set)
    """Services of which a file was damaged: their order is not promised."""
    known: dict[Path, Content] = field(default_factory=dict)
    """What was in a file before it was damaged for the first time."""
    orders: dict[str, Any] = field(default_factory=dict)
    """What the next process is to be given besides."""
    done: list[str] = field(default_factory=list)
    """What happened in each round."""
    doubled: Counter[str] = field(default_factory=Counter)
    """How many events of a service that ended were sent again."""

    def __repr__(self) -> str:
        accepted = sum(len(process.accepted()) for process in self.gone)
        return (
            f"<Storm SPOOL_KILL_SEED={SEED} {len(self.done)} rounds: {accepted} "
            f"accepted, {len(self.excused)} may be lost, {self.doubled.total()} sent "
            f"again, {max(self.doubled.values(), default=0)} of one service>"
        )

    def free_files(self) -> list[Path]:
        """List the files that no process has."""
        return [
            path
            for path in sorted(self.directory.glob("*.spool"))
            if PLANTED not in path.name and not path.is_symlink()
        ]

    def choose(self) -> Path | None:
        """Choose a file that no process has; None where there is none."""
        if any(process.lost_lock for process in self.alive):
            return None  # nobody can tell which files are in use
        files = self.free_files()
        self.dice.shuffle(files)
        if self.dice.random() < 0.7:
            files.sort(key=weigh, reverse=True)
        for path in files:
            with locked(path) as ours:
                if ours and path.stat().st_size and all(map(usable, beside(path))):
                    return path
        return None

    def excuse(self, path: Path, damage: Callable[[], None]) -> None:
        """Damage a file, and note what SQLite cannot read of it afterwards."""
        before = self.known.get(path)
        if before is None:
            before = self.known[path] = look(path, self.scratch)
        had = look(path, self.scratch, before)
        damage()
        has = look(path, self.scratch, before)
        names = {number: named(row) for number, row in before.rows.items()}
        self.torn |= {name.partition("-")[0] for name in names.values()}
        self.excused |= {names[one] for one in had.rows.keys() - has.rows.keys()}


def beside(path: Path) -> list[Path]:
    """List what a spool file consists of."""
    found = [Path(f"{path}{side}") for side in SIDES]
    return [one for one in found if one.exists()]


def usable(path: Path) -> bool:
    """Say whether we may read and write a file."""
    return os.access(path, os.R_OK | os.W_OK)


def weigh(path: Path) -> int:
    """Return how many bytes a file and its log have."""
    return sum(one.stat().st_size for one in beside(path))


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Keep services away from a file; False where one has it."""
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)


def look(path: Path, scratch: Path, before: Content | None = None) -> Content:
    """Read a copy of a file with SQLite alone.

    Args:
        path: the file; its log is read as well.
        scratch: where the copy may lie.
        before: look only for these rows, as they were.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for side in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{side}", scratch / f"copy{side}")
    with closing(sqlite3.connect(scratch / "copy")) as connection:
        connection.text_factory = bytes
        try:
            labels = connection.execute("SELECT key, value FROM meta").fetchall()
            made = connection.execute("SELECT * FROM sqlite_master").fetchall()
        except UNREADABLE:
            return Content()
        # Where a table's pages begin may change; its definition may not.
        frame = frozenset([*labels, *((*one[:3], one[4]) for one in made)])
        if before is None:
            rows = connection.execute("SELECT * FROM events").fetchall()
            return Content(frame, {row[0]: row for row in rows})
        if frame != before.frame:
            return Content()
        return Content(frame, dict(still_there(connection, before)))


def still_there(
    connection: sqlite3.Connection, before: Content
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Ask for each row by its number."""
    for number, row in before.rows.items():
        with contextlib.suppress(*UNREADABLE):
            query = "SELECT * FROM events WHERE id = ?"
            if connection.execute(query, (number,)).fetchone() == row:
                yield number, row


def named(row: tuple[Any, ...]) -> str:
    """Return the name of an event, as the service that tracked it gave it."""
    return str(json.loads(row[1])["event_properties"]["n"])


# What is done to the directory -------------------------------------------------------


def spoil(storm: Storm, side: str, start: int, end: int | None) -> str:
    """Overwrite some bytes of a file that no process has."""
    path = storm.choose()
    if path is None:
        return "no file"
    target = Path(f"{path}{side}")
    if not target.exists() or target.stat().st_size <= start:
        return "no bytes"

    def damage() -> None:
        if not side and storm.dice.random() < 0.8:
            fold(path)
        size = target.stat().st_size
        with target.open("r+b") as file:
            for _ in range(storm.dice.choice((1, 1, 2, 10))):
                length = storm.dice.choice((1, 4, 64, 4_096, 4_096))
                at = storm.dice.randrange(start, min(size, end or size))
                file.seek(at)
                file.write(storm.dice.randbytes(min(length, (end or size) - at)))

    with locked(path) as ours:
        if ours:
            storm.excuse(path, damage)
    return target.name


def fold(path: Path) -> None:
    """Let what the log has be in the file itself, as after some thousand events."""
    with contextlib.suppress(*UNREADABLE), closing(sqlite3.connect(path)) as one:
        one.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def spoil_page(storm: Storm) -> str:
    """Overwrite bytes anywhere in the database."""
    return spoil(storm, "", 0, None)


def spoil_header(storm: Storm) -> str:
    """Overwrite bytes of the database's first hundred."""
    return spoil(storm, "", 0, 100)


def spoil_log(storm: Storm) -> str:
    """Overwrite bytes of the write-ahead log."""
    return spoil(storm, "-wal", 0, None)


def cut(storm: Storm, side: str) -> str:
    """Cut off the end of a file."""
    path = storm.choose()
    if path is None or not Path(f"{path}{side}").exists():
        return "no file"
    target = Path(f"{path}{side}")

    def damage() -> None:
        os.truncate(target, storm.dice.randrange(target.stat().st_size + 1))

    with locked(path) as ours:
        if ours:
            storm.excuse(path, damage)
    return target.name


def cut_log(storm: Storm) -> str:
    """Cut off the end of the write-ahead log."""
    return cut(storm, "-wal")


def cut_file(storm: Storm) -> str:
    """Cut off the end of the database."""
    return cut(storm, "")


def delete_locks(storm: Storm) -> str:
    """Delete every lock, those of living processes too."""
    for process in storm.alive:
        process.lost_lock = True
    for path in storm.directory.glob("*.lock"):
        path.unlink(missing_ok=True)
    return "*.lock"


def delete_index(storm: Storm) -> str:
    """Delete what SQLite keeps of a log in memory."""
    path = storm.choose()
    if path is not None:
        Path(f"{path}-shm").unlink(missing_ok=True)
    return str(path and path.name)


def plant(storm: Storm) -> str:
    """Put something into the directory that no spool has made."""
    path = new_spool_path(storm.directory)
    path = path.with_name(f"{path.stem}-{PLANTED}.spool")
    kind = storm.dice.choice(("empty", "garbage", "link", "view", "trigger"))
    if kind == "empty":
        path.touch(0o600)
    elif kind == "garbage":
        path.write_bytes(storm.dice.randbytes(storm.dice.randrange(1, 20_000)))
        path.chmod(0o600)
    elif kind == "link":
        target = storm.scratch.parent / "elsewhere.spool"
        if not target.exists():
            plant_file(target, "CREATE TABLE more (x)")
        path.symlink_to(target)
    else:
        plant_file(path, STRANGE[kind])
    return kind


STRANGE = {
    "view": "ALTER TABLE events RENAME TO real;"
    "CREATE VIEW events AS WITH RECURSIVE n(x) AS"
    " (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT * FROM n, real",
    "trigger": "CREATE TRIGGER again AFTER DELETE ON events BEGIN"
    " INSERT INTO events SELECT old.id + 1000, old.body, old.identity, old.user_id,"
    " old.device_id, old.insert_id || 'x', old.accepted_at, old.checksum; END",
}


def plant_file(path: Path, statements: str) -> None:
    """Make a spool with an event and something else in it."""
    label = "elsewhere"
    with contextlib.suppress(*UNREADABLE, TypeError):
        one = next(iter(sorted(path.parent.glob("*.spool"))), None)
        if one is not None and not one.is_symlink():
            label = labelled(one)
    with closing(SpoolFile.create(path, label, full_sync=False)) as file:
        file.insert([make_record(1)])
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def labelled(path: Path) -> str:
    """Read for whom the events of a file are."""
    uri = f"{path.as_uri()}?mode=ro"
    query = "SELECT value FROM meta WHERE key = 'destination'"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return str(connection.execute(query).fetchone()[0])


def change_mode(storm: Storm) -> str:
    """Let everybody write to one file, or nobody."""
    path = storm.choose()
    if path is None:
        return "no file"
    target = storm.dice.choice([*beside(path), path.with_suffix(".lock")])
    target.chmod(storm.dice.choice((0o666, 0o000)))
    return target.name


def restore_modes(storm: Storm) -> None:
    """Take from others the right to write to the files."""
    for path in storm.directory.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)


def hold(storm: Storm) -> str:
    """Have another process write to a file while the next service starts."""
    path = storm.choose()
    if path is not None:
        storm.orders["hold"] = str(path)
    return str(path and path.name)


def fill(storm: Storm) -> str:
    """Fill the disk, to the last byte or nearly so."""
    spare = storm.dice.choice((0, 65_536, 2**20, 4 * 2**20))
    for process in storm.alive:
        process.may_fail = True
    if not storm.small:
        # Of another process one may limit no more than how large its files become.
        storm.orders["largest"] = spare + 65_536
        return f"files of {spare + 65_536} bytes"
    ballast = storm.directory / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), b"\0" * 4_096)
    os.truncate(ballast, max(ballast.stat().st_size - spare, 0))
    storm.orders["full"] = True
    return f"but {spare} bytes"


def delete_in_use(storm: Storm) -> str:
    """Have a cleaner delete files of the next process while it lives."""
    storm.orders["clean"] = storm.dice.choice(("", "-wal", "-shm", ".lock"))
    return f"*{storm.orders['clean'] or '.spool'}"


def nothing(_: Storm) -> str:
    """Leave it as the kill has left it."""
    return ""


FAULTS: list[Callable[[Storm], str]] = [
    *[spoil_page] * 4,
    spoil_header,
    spoil_log,
    cut_log,
    cut_file,
    delete_locks,
    delete_index,
    plant,
    change_mode,
    hold,
    fill,
    delete_in_use,
    nothing,
]


# Those who use it --------------------------------------------------------------------


@dataclass
class Nursery:
    """Starts services, kills them and waits for their end."""

    process: asyncio.subprocess.Process
    emulator: Emulator
    storm: Storm
    papers: Path

    async def ask(self, **given: Any) -> int:
        """Have something done; returns a process' number, or how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps(given)}\n".encode())
        async with asyncio.timeout(DEADLINE):
            return int(await self.process.stdout.readline())

    async def start(self, number: int, orders: dict[str, Any]) -> Process:
        """Start a service."""
        name, says = f"s{number}", self.papers / f"s{number}"
        pid = await self.ask(
            name=name,
            says=str(says),
            directory=str(self.storm.directory),
            key=KEY,
            largest=orders.get("largest", 0),
            quickly=self.storm.dice.choice((5, 20, 60)),
            options={
                **IMPATIENT,
                "server_url": self.emulator.httpapi_url,
                "overflow_timeout": 10.0,
                "shutdown_timeout": 0.5,
            },
        )
        full = "full" in orders or "largest" in orders
        process = Process(name, pid, says, may_fail=full)
        self.storm.alive.append(process)
        return process

    async def hold(self, number: int, path: str) -> int:
        """Have a process write to a file for a while."""
        says = self.papers / f"hold{number}"
        seconds = self.storm.dice.choice((0.05, 0.3, 1.0))
        pid = await self.ask(hold=path, says=str(says), seconds=seconds)
        with contextlib.suppress(TimeoutError):
            await until(says.exists, 1.0)
        return pid

    async def end(self, process: Process) -> None:
        """Kill a service, or ask it to end."""
        self.storm.alive.remove(process)
        self.storm.gone.append(process)
        process.died_at = time.time()
        kindly = self.storm.dice.random() < 0.15 and "started" in process.lines()
        os.kill(process.pid, signal.SIGTERM if kindly else signal.SIGKILL)
        code = await self.ask(wait=process.pid)
        if kindly:
            assert code == 0, (process, code)
            assert "ended" in process.lines()
        elif not process.may_fail:
            assert code == -signal.SIGKILL, (process, code)


async def until(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait for something that a process does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.003)


async def live(storm: Storm, process: Process, clean: str | None) -> None:
    """Let a service do its work up to some random instant."""
    dice = storm.dice
    if clean is None and dice.random() < 0.3:
        await asyncio.sleep(dice.random() * 0.15)
        return
    wanted = dice.randrange(1, 250)
    await until(lambda: process.may_fail or len(process.lines()) > wanted)
    if clean is not None:
        await asyncio.to_thread(clean_away, storm, process, clean)
        before = len(process.lines())
        # By then each event of before has one behind it that was begun after.
        await until(lambda: len(process.lines()) > before + 2 * WORKERS)
    await asyncio.sleep(dice.choice((0.0, 0.02, 0.2)))
    if process.may_fail:
        await asyncio.sleep(dice.random() * 0.3)


def clean_away(storm: Storm, process: Process, suffix: str) -> None:
    """Delete something of a living process."""
    process.lost_lock = True
    for path in storm.directory.glob(f"*-{process.pid}-*.spool"):
        name = path.with_suffix(".lock") if suffix == ".lock" else f"{path}{suffix}"
        Path(name).unlink(missing_ok=True)


def sweep(storm: Storm) -> None:
    """Do what a person does: free the disk, and now and then what the log asks for."""
    (storm.directory / "ballast").unlink(missing_ok=True)
    for path in storm.directory.glob("*.corrupt*"):
        path.unlink()
    if storm.dice.random() < 0.3:
        restore_modes(storm)


async def play(nursery: Nursery, number: int) -> None:
    """Play one round: a life, a death and a fault."""
    storm = nursery.storm
    orders, storm.orders = storm.orders, {}
    mood = storm.dice.choices(list(MOODS), (2, 2, 2, 3))[0]
    nursery.emulator.faults.clear()
    for fault in MOODS[mood]:
        nursery.emulator.faults.add(fault)
    holder = None
    if "hold" in orders:
        holder = await nursery.hold(number, orders["hold"])
    newest = await nursery.start(number, orders)
    await live(storm, newest, orders.get("clean"))
    check_lives(storm)
    if len(storm.alive) == 2 or storm.dice.random() < 0.75:
        await nursery.end(storm.dice.choice(storm.alive))
    if holder is not None:
        await nursery.ask(wait=holder)
    await asyncio.to_thread(sweep, storm)
    trouble = storm.dice.choice(FAULTS)
    what = "its service was faster, and has finished the file"
    with contextlib.suppress(FileNotFoundError):
        what = await asyncio.to_thread(trouble, storm)
    storm.done.append(f"{number} {mood} {trouble.__name__} {what}")


def check_lives(storm: Storm) -> None:
    """See that each service has started, or may refuse to."""
    for process in storm.alive:
        lines = process.lines()
        refused = [line for line in lines if line.startswith("refused")]
        assert process.may_fail or not refused, refused
        forgetful = [name for name, durable in process.accepted() if not durable]
        assert process.may_fail or not forgetful, forgetful[:3]


def unsent(storm: Storm) -> list[Path]:
    """List files with events; what is set aside in one keeps it from being deleted."""
    return [path for path in storm.free_files() if may_have_events(path, storm)]


def may_have_events(path: Path, storm: Storm) -> bool:
    """Look into a file; one whose pages are torn was read by nobody as yet."""
    try:
        return bool(look(path, storm.scratch).rows)
    except UNREADABLE:
        return True


async def drain(storm: Storm, connect: Callable[[], Amplitude]) -> None:
    """Start again until nothing is left."""
    for _ in range(60):
        if not await asyncio.to_thread(unsent, storm):
            return
        client = connect()
        async with asyncio.timeout(DEADLINE):
            await client.start()
        async with asyncio.timeout(60):
            assert (await client.flush(None)).pending == 0
            await client.shutdown()
    pytest.fail(f"left in the end: {unsent(storm)}")


# What must hold ----------------------------------------------------------------------


def check_arrivals(storm: Storm, emulator: Emulator) -> None:
    """Nothing that is promised is missing, and nothing was made up or sent twice."""
    arrived = [event["event_properties"].get("n") for event in emulator.events]
    assert None not in arrived, "a planted event was sent"
    assert len(set(arrived)) == len(arrived)
    promised, last = set(), Counter[str]()
    for process in storm.gone:
        for name, durable in process.accepted():
            promised.update([name] if durable else [])
            worker, _, count = name.rpartition("-")
            last[worker] = max(last[worker], int(count))
    missing = promised - set(arrived) - storm.excused
    by_service = Counter(name.partition("-")[0] for name in missing)
    assert not missing, (by_service, sorted(missing)[:10])
    for name in arrived:
        worker, _, count = str(name).rpartition("-")
        # The last one may have been accepted a moment before the kill.
        assert int(count) <= last.get(worker, -1) + 1, name
    assert len(promised) > 20 * len(storm.gone)
    assert len(storm.excused) < len(promised) / 2


def check_order(storm: Storm, emulator: Emulator) -> None:
    """Events of one user of one service arrive in the order of their acceptance."""
    torn = storm.torn | {one.name for one in storm.gone if one.lost_lock}
    highest: dict[str, int] = defaultdict(lambda: -1)
    for event in emulator.events:
        worker, _, count = event["event_properties"]["n"].rpartition("-")
        if worker.partition("-")[0] not in torn:
            assert int(count) > highest[worker], event["event_properties"]["n"]
            highest[worker] = int(count)


def check_doubles(storm: Storm, emulator: Emulator) -> None:
    """Only what one process died with is sent again, by another one."""
    died = {process.name: process for process in storm.gone}
    senders: dict[str, dict[str, float]] = defaultdict(dict)
    for request in emulator.requests:
        if request.status != HTTPStatus.OK:
            continue
        sender = request.headers.get("X-Service", "the last")
        for event in request.events:
            name = event["event_properties"]["n"]
            # Whoever had an answer knows it for its life. But where one dies while it
            # replaces a damaged file, both the old and the new have the event.
            is_torn = name.partition("-")[0] in storm.torn
            assert is_torn or sender not in senders[name], (name, sender)
            senders[name][sender] = request.received_at
    for name, sent in senders.items():
        for before, after in pairwise(sent):
            owner = died[before]
            storm.doubled[before] += 1
            assert owner.lost_lock or sent[after] > owner.died_at, (name, before, after)


# The storm ---------------------------------------------------------------------------


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Yield a server that forgets nothing of so long a test."""
    async with Emulator(
        keep=3_000_000, keep_requests=1_000_000, keep_bytes=2**40
    ) as running:
        yield running


@pytest.fixture
def storm(tmp_path: Path) -> Iterator[Storm]:
    """Yield a directory for a spool: a small disk of its own where that can be."""
    directory = tmp_path / "spool"
    directory.mkdir(0o700)
    options = f"size={DISK},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)],  # noqa: S607
        capture_output=True,
        check=False,
    )
    small = not mounted.returncode
    dice = random.Random(SEED)
    try:
        yield Storm(directory, tmp_path / "scratch", dice, small)
    finally:
        if small:
            subprocess.run(["umount", str(directory)], check=True)  # noqa: S607


@asynccontextmanager
async def nursed(storm: Storm, emulator: Emulator) -> AsyncIterator[Nursery]:
    """Yield what starts services, and leave none behind."""
    papers = storm.scratch.parent / "papers"
    papers.mkdir()
    with (papers / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", textwrap.dedent(NURSERY)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        yield Nursery(process, emulator, storm, papers)
    finally:
        for one in storm.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        process.kill()
        await process.wait()


@pytest.mark.long
@pytest.mark.timeout(60 + 3 * ROUNDS)
async def test_kills_and_faults_lose_nothing_that_is_promised(
    storm: Storm, emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """However often processes die and whatever is done to their disk meanwhile."""
    try:
        async with nursed(storm, emulator) as nursery:
            for number in range(ROUNDS):
                await play(nursery, number)
            while storm.alive:
                await nursery.end(storm.alive[0])
        emulator.faults.clear()
        await asyncio.to_thread(sweep, storm)
        await asyncio.to_thread(restore_modes, storm)
        await drain(storm, lambda: connect(storage=SQLiteStorage(storm.directory)))
        check_arrivals(storm, emulator)
        check_order(storm, emulator)
        check_doubles(storm, emulator)
    except BaseException:
        logger.error("%s\n%s", storm, "\n".join(storm.done))  # noqa: TRY400
        raise
    logger.info("%s", storm)
