"""The commands of a fleet's log, on one in memory: what they print and change."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from amplitude_async.cli.app import app
from amplitude_async.cli.relay import access
from amplitude_async.exceptions import LogFullError, LogUnreachableError
from amplitude_async.fleet.addresses import log_at
from amplitude_async.fleet.codec import decode, encode
from amplitude_async.fleet.log import (
    BuriedLetter,
    Chunk,
    Letter,
    Log,
    Place,
    Settings,
)
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.storage.base import Record

__all__: list[str] = []

ADDRESS = "postgresql://shop:hunter2-secret@db.example/shop"
PASSWORD = "hunter2-secret"
FIRST, SECOND = Place("amplitude", 0), Place("amplitude", 1)
WIDE = {"COLUMNS": "250", "AMPLITUDE_LOG": ADDRESS}


def record(number: int, name: str = "Paid") -> Record:
    """Return an event as a producer encodes it."""
    body = json.dumps({"event_type": name, "insert_id": f"i-{number}"}).encode()
    return Record(number, body, "user-1", "user-1", None, f"i-{number}", 1000.0)


def letter(number: int, place: Place = FIRST, message: str = "bad field") -> Letter:
    """Return a rejected event."""
    data = encode([record(number)])
    return Letter(f"c{number}.0", place, data, 400, message, raw=False)


RAW = Letter("c99.raw", FIRST, b"\x00rubbish", 0, "the checksum is wrong", raw=True)


class Switchboard:
    """Gives commands handles on one log, and lets tests look into it."""

    def __init__(self) -> None:
        self.log = MemoryLog("shop", partitions=2)
        self.asked: list[tuple[str, str]] = []

    def handle(self, address: str, *, project: str) -> Log:
        """Stand in for `log_at`."""
        self.asked.append((str(address), project))
        return self.log.handle()

    def bury(self, *letters: Letter) -> None:
        """Put dead letters into the log."""
        asyncio.run(self._opened("bury", letters))

    def publish(self, place: Place, *numbers: int) -> None:
        """Put a chunk into the log."""
        data = encode([record(number) for number in numbers])
        chunk = Chunk(f"chunk-{place}-{numbers}", place, data, len(numbers))
        asyncio.run(self._opened("publish", chunk))

    def positions(self) -> list[int]:
        """Return where dead letters stand."""
        found = asyncio.run(self._opened("letters", 0, 10_000))
        return [one.position for one in found]

    def waiting(self, place: Place) -> list[list[str]]:
        """Return the insert ids of each chunk that waits in a place."""

        async def read() -> list[list[str]]:
            log = self.log.handle()
            await log.open()
            claim = await log.claim(place, "a test", 10.0)
            assert claim is not None
            chunks = await claim.read(10**9)
            await claim.release()
            return [[one.insert_id for one in decode(chunk.data)] for chunk in chunks]

        return asyncio.run(read())

    async def _opened(self, verb: str, *arguments: Any) -> Any:
        log = self.log.handle()
        await log.open()
        return await getattr(log, verb)(*arguments)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Switchboard:
    """Let each address lead to one log in memory."""
    made = Switchboard()
    monkeypatch.setattr(access, "log_at", made.handle)
    return made


def relay(*words: object, env: dict[str, str] | None = None) -> Result:
    """Run a command, and look for the password in all it says."""
    given = ["relay", *map(str, words)]
    result = CliRunner().invoke(app, given, env=WIDE | (env or {}))
    assert PASSWORD not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def read_json(*words: object) -> Any:
    """Run a command that succeeds and prints JSON."""
    result = relay(*words, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


# Addresses -------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("setup",), ("run",), ("status",), ("dead", "list"), ("dead", "drop", 1)]
)
def test_without_a_log_it_is_told_how_to_name_one(words: tuple[object, ...]) -> None:
    """The variable, the option and what they take."""
    result = relay(*words, env={"AMPLITUDE_LOG": ""})

    assert result.exit_code == 2
    assert "AMPLITUDE_LOG" in result.stderr
    assert "nats://a,b,c" in result.stderr


@pytest.mark.parametrize("address", ["redis://u:hunter2-secret@h", "hunter2-secret"])
def test_an_unknown_scheme_is_refused_and_not_shown(address: str) -> None:
    """What is accepted is named; what was given may hold a password."""
    result = relay("status", "--log", address)

    assert result.exit_code == 2
    assert "postgresql://host/db or nats://a,b,c" in result.stderr


@pytest.mark.parametrize("query", ["replicas=three", "token=hunter2-secret", "x"])
def test_a_wrong_option_in_an_address_is_refused(query: str) -> None:
    """Those that there are, are named."""
    result = relay("status", "--log", f"nats://one?{query}")

    assert result.exit_code == 2
    assert "credentials, dead_max_bytes, max_bytes, monitoring" in result.stderr


def test_an_address_of_nats_may_hold_options() -> None:
    """A server alone has no three replicas."""
    log = log_at("nats://one,two?replicas=1&max_bytes=2000000", project="shop")

    assert log.fingerprint() == "nats://one:4222,two:4222/shop"


def test_the_option_wins_over_the_variable(board: Switchboard) -> None:
    """As everywhere; the project goes along."""
    relay("status", "--log", "nats://one", "--project", "web")
    relay("status")

    assert board.asked == [("nats://one", "web"), (ADDRESS, "default")]


def test_the_help_shows_no_address() -> None:
    """Though it names the variable, which holds a password."""
    result = relay("run", "-h")

    assert result.exit_code == 0
    assert "AMPLITUDE_LOG" in result.stdout


# Setup and status ------------------------------------------------------------


def test_setup_says_what_it_did_and_may_be_repeated(board: Switchboard) -> None:
    """The number of partitions is fixed by the first."""
    board.log = MemoryLog("shop", partitions=None)

    first, second = relay("setup", "--partitions", 3), relay("setup")
    third = relay("setup", "--partitions", 4)

    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 0, 2)
    assert "partitions: 3" in first.stdout
    assert "nothing had to be done" in second.stdout
    assert "partitions=4" in third.stderr


def test_a_log_that_is_not_set_up_is_a_wrong_setting(board: Switchboard) -> None:
    """Exit code 2, and the remedy."""
    board.log = MemoryLog("shop", partitions=None)

    for words in (("status",), ("dead", "list"), ("replay", "--since", "2026-01-01")):
        result = relay(*words)
        assert result.exit_code == 2
        assert "not set up" in result.stderr


def test_status_of_a_log_that_nobody_used(board: Switchboard) -> None:
    """It says that nothing waits."""
    result = relay("status")

    assert result.exit_code == 0
    assert "Nothing waits" in result.stdout
    assert "2 partitions" in result.stdout
    assert "No dead letters." in result.stdout


def test_status_tells_what_waits_where(board: Switchboard) -> None:
    """Chunks, events, bytes and age of each place, their sum, and dead letters."""
    board.publish(FIRST, 1, 2)
    board.publish(FIRST, 3)
    board.publish(SECOND, 4)
    board.bury(letter(1))

    found = read_json("status")
    shown = relay("status").stdout
    narrow = relay("status", env={"COLUMNS": "30"}).stdout

    first, second = found["places"]
    assert (first["destination"], first["partition"]) == FIRST
    assert (first["chunks"], first["events"], first["holder"]) == (2, 3, None)
    assert (second["chunks"], second["events"]) == (1, 1)
    assert found["total"]["bytes"] == first["bytes"] + second["bytes"] > 0
    assert 0 <= found["total"]["oldest_age"] < 60
    assert (found["dead_letters"], found["more_dead_letters"]) == (1, False)
    assert "amplitude.0" in shown
    assert "1 dead letter: amplitude-async relay dead list" in shown
    assert "amplitude.0, held by nobody\n  3 events in 2 chunks" in narrow


class Mute(MemoryLog):
    """A log that can be made but not reached."""

    async def open(self) -> Settings:
        """Fail as a server does that is not there, and quotes what it was asked."""
        msg = f"nobody answers at {ADDRESS}"
        raise LogUnreachableError(msg)

    async def setup(self, partitions: int | None = None) -> list[str]:
        """Fail likewise."""
        del partitions
        await self.open()
        return []


@pytest.mark.parametrize("words", ["setup", "status", "dead list", "dead drop 1"])
def test_a_log_that_is_away_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """3, with words and without a secret."""
    monkeypatch.setattr(access, "log_at", lambda _, project: Mute(project))

    result = relay(*words.split())

    assert result.exit_code == 3
    assert "nobody answers" in result.stderr


def test_a_users_name_is_shown_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whichever way the address holds it, and the server repeats it."""
    for address in (
        "nats://hunter2-secret@h",
        "nats://shop:hunter2%2Dsecret@h,i",
        "postgresql://shop@h/x?password=hunter2-secret",
        ADDRESS,
    ):
        monkeypatch.setattr(access, "log_at", lambda _, project: Mute(project))
        result = relay("status", "--log", address)
        assert result.exit_code == 3
        assert "at postgresql://" in result.stderr
        assert "db.example/shop" in result.stderr


class Hung(MemoryLog):
    """A log whose server takes connections and says nothing."""

    async def open(self) -> Settings:
        """Wait for ever."""
        await asyncio.Event().wait()
        return Settings(1, synced=False)


def test_a_log_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is an end to every wait."""
    monkeypatch.setattr(access, "log_at", lambda _, project: Hung(project))
    monkeypatch.setattr(access, "OPEN_PATIENCE", 0.05)

    result = relay("status")

    assert result.exit_code == 3
    assert "does not answer" in result.stderr


# Dead letters: list ----------------------------------------------------------


def test_dead_letters_are_listed_with_code_and_reason(board: Switchboard) -> None:
    """What a server said cannot steer the terminal."""
    hostile = "bad \x1b[31m [bold]field[/bold] \u202e"
    board.bury(letter(1, message=hostile), letter(2, SECOND), RAW)

    shown = relay("dead", "list").stdout
    found = read_json("dead", "list", "--body")

    assert "\x1b" not in shown
    assert "bad \\x1b[31m [bold]field[/bold] \\u202e" in shown
    assert "damaged" in shown
    first, second, third = found["letters"]
    assert (first["code"], first["reason"], first["raw"]) == (400, hostile, False)
    assert (first["event_type"], first["insert_id"]) == ("Paid", "i-1")
    assert first["body"] == {"event_type": "Paid", "insert_id": "i-1"}
    assert (second["destination"], second["partition"]) == SECOND
    assert (third["raw"], third["body"], third["event_type"]) == (True, None, None)


def test_a_page_of_dead_letters_says_how_to_go_on(board: Switchboard) -> None:
    """By the position of the last one shown."""
    board.bury(*map(letter, range(5)))
    every = board.positions()

    first = read_json("dead", "list", "--limit", 2)
    last = first["letters"][-1]["position"]
    rest = read_json("dead", "list", "--after", last)
    shown = relay("dead", "list", "--limit", 2).stdout

    assert [one["position"] for one in first["letters"]] == every[:2]
    assert [one["position"] for one in rest["letters"]] == every[2:]
    assert (first["more"], rest["more"]) == (True, False)
    assert f"--after {last}" in shown
    assert relay("dead", "list", "--after", every[-1]).stdout == "No dead letters.\n"


# Dead letters: send ----------------------------------------------------------


def ids(numbers: Sequence[int]) -> list[str]:
    """Return the insert ids of events."""
    return [f"i-{number}" for number in numbers]


def test_dead_letters_are_sent_again_in_order_and_forgotten(
    board: Switchboard,
) -> None:
    """Each in its place, as many as fit in one chunk."""
    board.bury(*map(letter, (1, 2, 3)), letter(4, SECOND))

    result = relay("dead", "send", "--all")

    assert (result.exit_code, result.stdout) == (
        0,
        "4 dead letters will be sent again\n",
    )
    assert board.waiting(FIRST) == [ids([1, 2, 3])]
    assert board.waiting(SECOND) == [ids([4])]
    assert board.positions() == []


def test_only_those_at_given_positions_are_sent(board: Switchboard) -> None:
    """One that nobody has is named, and the exit code is 1."""
    board.bury(*map(letter, (1, 2, 3)))
    _, second, third = board.positions()

    result = relay("dead", "send", third, second, 999)

    assert result.exit_code == 1
    assert "no dead letter stands at 999" in result.stderr
    assert board.waiting(FIRST) == [ids([2, 3])]
    assert len(board.positions()) == 1


def test_a_raw_letter_stays_and_is_named(board: Switchboard) -> None:
    """Nobody knows which events are in it."""
    board.bury(letter(1), RAW)

    result = relay("dead", "send", "--all", "--json")

    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (found["sent"], found["complete"]) == (1, True)
    assert [one["position"] for one in found["skipped"]] == board.positions()
    assert "damaged" in relay("dead", "send", "--all").stderr


@pytest.mark.parametrize("command", [("dead", "send"), ("replay",)])
def test_those_since_a_time_are_sent(
    board: Switchboard, command: tuple[str, ...]
) -> None:
    """By the time of their rejection; without a zone it is UTC."""
    board.bury(letter(1))

    later = relay(*command, "--since", "2999-01-01T00:00:00")
    sent = relay(*command, "--since", "2020-01-01T00:00:00Z")

    assert later.stdout == "0 dead letters will be sent again\n"
    assert sent.stdout == "1 dead letter will be sent again\n"


@pytest.mark.parametrize(
    "words",
    [
        ("dead", "send"),
        ("dead", "send", "1", "--all"),
        ("dead", "send", "0"),
        ("dead", "send", "--since", "noon"),
        ("dead", "drop"),
        ("replay",),
        ("run", "--health", "8080"),
        ("run", "--health", "host:99999"),
        ("run", "--lease", "0.1"),
        ("run", "--name", "a b"),
        ("setup", "--partitions", "0"),
    ],
)
def test_a_wrong_command_does_nothing(
    board: Switchboard, words: tuple[str, ...]
) -> None:
    """Exit code 2, and nobody is asked for the log."""
    board.bury(letter(1))

    result = relay(*words)

    assert result.exit_code == 2
    assert result.stderr
    assert board.asked == []
    assert len(board.positions()) == 1


def test_a_full_log_keeps_its_dead_letters(board: Switchboard) -> None:
    """Nothing is forgotten that was not published."""
    board.bury(letter(1), letter(2))
    full = board.log.handle()
    full.refuse(LogFullError("the log is full"))
    board.handle = lambda address, *, project: full  # type: ignore[method-assign] # noqa: ARG005
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "log_at", board.handle)
        result = relay("dead", "send", "--all")

    assert result.exit_code == 3
    assert "the log is full" in result.stderr
    assert "0 dead letters will be sent again" in result.stdout
    assert len(board.positions()) == 2


def test_who_was_interrupted_sends_under_the_same_name(board: Switchboard) -> None:
    """A log that remembers the chunk stores it once."""
    board.bury(letter(1), letter(2))
    forgetful = board.log.handle()

    async def forget(_: Sequence[int]) -> None:
        await asyncio.sleep(0)
        raise LogUnreachableError("gone in between")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetful, "forget_letters", forget)
        patch.setattr(access, "log_at", lambda _, project: forgetful)  # noqa: ARG005
        first = relay("dead", "send", "--all")
    second = relay("dead", "send", "--all")

    assert (first.exit_code, second.exit_code) == (3, 0)
    assert board.waiting(FIRST) == [ids([1, 2])]
    assert board.positions() == []


def test_an_old_letter_is_as_good_as_new(board: Switchboard) -> None:
    """A relay gives up on events that are days old: their age counts anew."""
    board.bury(letter(1))

    relay("dead", "send", "--all")

    async def read() -> float:
        log = board.log.handle()
        await log.open()
        claim = await log.claim(FIRST, "a test", 10.0)
        assert claim is not None
        [chunk] = await claim.read(10**9)
        return decode(chunk.data)[0].accepted_at

    assert time.time() - asyncio.run(read()) < 60


class Rejecting(MemoryLog):
    """A log behind which a relay rejects everything at once."""

    async def publish(self, chunk: Chunk) -> None:
        """Bury each event of the chunk."""
        await super().publish(chunk)
        for index, one in enumerate(decode(chunk.data)):
            key, data = f"{chunk.id}.{index}", encode([one])
            await self.bury([Letter(key, chunk.place, data, 400, "no", raw=False)])


def test_what_is_rejected_again_is_not_sent_again_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Letters that the command itself has brought about are left alone."""
    board = Switchboard()
    board.log = Rejecting("shop", partitions=2)
    monkeypatch.setattr(access, "log_at", board.handle)
    board.bury(*map(letter, range(1200)))

    result = relay("dead", "send", "--all")

    assert result.stdout == "1,200 dead letters will be sent again\n"
    assert len(board.positions()) == 1200


def test_large_letters_are_read_a_few_at_a_time(
    board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log answers within seconds, and a command has no gigabyte of memory."""
    body = b'{"event_type":"Paid","x":"' + b"A" * 900_000 + b'"}'
    large = encode([Record(1, body, "user-1", "user-1", None, "i-1", 1000.0)])
    board.bury(
        *(Letter(f"c{n}.0", FIRST, large, 413, "large", raw=False) for n in range(60))
    )
    sizes = []
    read = MemoryLog.letters

    async def noted(log: MemoryLog, after: int, limit: int) -> list[BuriedLetter]:
        page = await read(log, after, limit)
        sizes.append(sum(len(one.letter.data) for one in page))
        return page

    monkeypatch.setattr(MemoryLog, "letters", noted)

    assert read_json("status")["dead_letters"] == 60
    assert read_json("dead", "send", "--all")["sent"] == 60
    assert max(sizes) < 20 * 1024 * 1024


def test_many_small_letters_are_read_many_at_a_time(
    board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand of them are not ten thousand questions."""
    board.bury(*map(letter, range(3_000)))
    asked = []
    read = MemoryLog.letters

    async def noted(log: MemoryLog, after: int, limit: int) -> list[BuriedLetter]:
        asked.append(limit)
        return await read(log, after, limit)

    monkeypatch.setattr(MemoryLog, "letters", noted)

    assert read_json("status")["dead_letters"] == 3_000
    assert len(asked) < 15


@pytest.mark.parametrize(
    "words",
    [
        ("drop", 2**63),
        ("send", 2**63),
        ("list", "--after", 2**63),
        ("list", "--limit", 2**63),
    ],
)
def test_a_number_that_no_log_counts_with_is_a_wrong_command(
    board: Switchboard, words: tuple[object, ...]
) -> None:
    """And not a log that does not answer."""
    assert relay("dead", *words).exit_code == 2
    assert board.positions() == []


def test_dropped_letters_are_gone(board: Switchboard) -> None:
    """For good, and only those that were named."""
    board.bury(letter(1), letter(2))
    first, second = board.positions()

    result = relay("dead", "drop", first, 999)

    assert result.exit_code == 1
    assert result.stdout == "1 dead letter deleted\n"
    assert board.positions() == [second]
    assert board.waiting(FIRST) == []


# Run -------------------------------------------------------------------------


def test_run_needs_a_key(board: Switchboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are named."""
    for name in ("AMPLITUDE_API_KEY", "MPARTICLE_API_KEY", "MPARTICLE_API_SECRET"):
        monkeypatch.delenv(name, raising=False)

    result = relay("run")

    assert result.exit_code == 2
    assert "AMPLITUDE_API_KEY" in result.stderr
    assert "MPARTICLE_API_SECRET" in result.stderr


def test_run_says_what_is_wrong_with_a_variable(board: Switchboard) -> None:
    """No traceback, which could hold a key."""
    env = {"AMPLITUDE_API_KEY": "k" * 32, "AMPLITUDE_SERVER_ZONE": "MOON"}
    result = relay("run", env=env)

    assert result.exit_code == 2
    assert "server_zone" in result.stderr
    assert "k" * 32 not in result.output


def test_run_ends_where_the_log_is_not_set_up(board: Switchboard) -> None:
    """Nobody would set it up while the relay waits."""
    board.log = MemoryLog("shop", partitions=None)

    result = relay("run", env={"AMPLITUDE_API_KEY": "k" * 32})

    assert result.exit_code == 2
    assert "not set up" in result.stderr


@pytest.mark.parametrize("words", [(), ("run",), ("setup",), ("status",), ("replay",)])
def test_help_fits_into_60_columns(words: tuple[str, ...]) -> None:
    """As that of all commands does."""
    result = relay(*words, "-h", env={"COLUMNS": "60", "NO_COLOR": "1"})

    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 60
