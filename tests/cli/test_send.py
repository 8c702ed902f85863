"""The command `send` with files: what arrives, what is rejected, where it goes on."""

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from amplitude_async.cli.app import app
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

KEY = "0123456789abcdef0123456789abcdef"
TIMEOUT = 60.0

# Files are written where the loop runs: it serves nobody else.
pytestmark = pytest.mark.allow_blocking


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, background_emulator: Emulator
) -> None:
    """Send to the emulator, from a directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMPLITUDE_SERVER_URL", background_emulator.httpapi_url)
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)


def send(*words: str, stdin: str | bytes | None = None) -> Result:
    """Run the command to its end."""
    return CliRunner().invoke(
        app, ["send", *words], input=stdin, catch_exceptions=False
    )


def written(name: str, lines: Iterable[Any]) -> str:
    """Write lines of JSON."""
    text = "".join(
        f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines
    )
    Path(name).write_text(text, encoding="utf-8")
    return name


def event(number: int, **fields: Any) -> dict[str, Any]:
    """Make an event with a number."""
    user = f"user-{number % 7:03d}"
    return {
        "event_type": "Paid",
        "user_id": user,
        "event_properties": {"n": number},
        **fields,
    }


def numbers(emulator: Emulator) -> list[int]:
    """Return the numbers of the events that are stored, sorted."""
    return sorted(one["event_properties"]["n"] for one in emulator.events)


def test_each_line_arrives_once(background_emulator: Emulator) -> None:
    """The fields are those of the line, in the wire's words or in ours."""
    name = written(
        "events.jsonl",
        [
            event(1, productId="p-1", time=1790000000000),
            event(2, product_id="p-2", time="2026-09-21T14:13:20Z"),
            "",
            event(3, insert_id='an "id"'),
        ],
    )

    result = send(name)

    assert result.exit_code == 0
    assert "3 delivered, 0 rejected" in result.stdout
    first, second, third = sorted(
        background_emulator.events, key=lambda one: one["event_properties"]["n"]
    )
    assert (first["productId"], first["time"]) == ("p-1", 1790000000000)
    assert (second["productId"], second["time"]) == ("p-2", 1790000000000)
    assert third["insert_id"] == 'an "id"'


def test_rejected_lines_are_told_with_number_and_reason(
    background_emulator: Emulator,
) -> None:
    """A bad line harms no other, and a file keeps each with its text."""
    name = written(
        "events.jsonl",
        [
            event(1),
            "{",
            event(3, colour="red"),
            event(4, user_id="ab"),
            event(5, price="cheap"),
            [1],
            event(7, time="noon"),
            {"user_id": "user-1"},
            event(9),
        ],
    )

    result = send(name, "--rejected", "bad.jsonl", "--json")

    report = json.loads(result.stdout)
    kept = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert result.exit_code == 1
    assert (report["delivered"], report["rejected"], report["line"]) == (2, 7, 9)
    assert sorted(one["line"] for one in report["rejections"]) == [*range(2, 9)]
    reasons = {one["line"]: one["reason"] for one in kept}
    for line, reason in {
        2: "no JSON",
        3: "unknown field 'colour'",
        4: "set min_id_length=2",
        5: "price='cheap'",
        6: "one event a line",
        7: "time is no time",
        8: "event_type is missing",
    }.items():
        assert reason in reasons[line]
    assert {one["line"]: one["input"] for one in kept}[2] == "{"
    assert Path("bad.jsonl").stat().st_mode & 0o777 == 0o600
    assert numbers(background_emulator) == [1, 9]


def test_what_the_server_rejects_is_told(background_emulator: Emulator) -> None:
    """Its verdict on an event is a rejected line, with the status."""
    body = {
        "code": 400,
        "error": "Request missing required field",
        "events_with_invalid_fields": {"time": [1]},
    }
    background_emulator.faults.add(Fault(400, body=body))
    name = written("events.jsonl", [event(1), event(2), event(3)])

    result = send(name)

    assert result.exit_code == 1
    assert re.search(r"line 2: HTTP 400, .*time", result.stdout)
    assert numbers(background_emulator) == [1, 3]


EXPORTED = {
    "$insert_id": "their-id",
    "$schema": 12,
    "amplitude_id": 123456789,
    "app": 1,
    "city": None,
    "client_event_time": "2026-06-08 22:13:11.000000",
    "client_upload_time": "2026-06-08 22:13:12.000000",
    "data": {"path": "/"},
    "device_carrier": "Carrier",
    "device_family": "Phone",
    "device_id": "device-1",
    "event_id": 7,
    "event_properties": {"total": 9.5},
    "event_time": "2026-06-08 22:13:10.123000",
    "event_type": "Paid",
    "group_properties": {},
    "groups": {"company": ["Acme"]},
    "ip_address": "192.0.2.1",
    "library": "amplitude-js/1.0",
    "location_lat": None,
    "paying": None,
    "platform": "Web",
    "processed_time": "2026-06-08 22:14:00.000000",
    "server_upload_time": "2026-06-08 22:13:13.000000",
    "session_id": -1,
    "user_id": "user-1",
    "user_properties": {"plan": "pro"},
    "uuid": "00000000-1111-2222-3333-444444444444",
    "version_name": "1.2",
}


@pytest.mark.parametrize("packed", [False, True])
def test_an_export_is_sent_again(background_emulator: Emulator, packed: bool) -> None:
    """What the Export API wrote becomes what the HTTP API takes, packed or not."""
    text = json.dumps(EXPORTED).encode() + b"\n"
    name = "export.json.gz" if packed else "export.json"
    Path(name).write_bytes(gzip.compress(text) if packed else text)

    assert send(name).exit_code == 0

    [found] = background_emulator.events
    assert found == {
        "carrier": "Carrier",
        "device_id": "device-1",
        "event_id": 7,
        "event_properties": {"total": 9.5},
        "event_type": "Paid",
        "groups": {"company": ["Acme"]},
        "insert_id": "their-id",
        "ip": "192.0.2.1",
        "library": "amplitude-js/1.0",
        "platform": "Web",
        "session_id": -1,
        "time": 1780956790123,
        "user_id": "user-1",
        "user_properties": {"plan": "pro"},
        "version_name": "1.2",
    }


CSV = (
    "\ufeffcustomer,total,zip,note,time\r\n"
    "user-1,9.5,00700,,2026-01-31T12:00:00Z\r\n"
    '\r\nuser-2,12,"8,01","two\nlines",1790000000000\r\n'
    "user-3,1\r\n"
)


def test_columns_go_where_they_are_mapped(background_emulator: Emulator) -> None:
    """Fields by name or map, all others are properties; empty cells are none."""
    Path("paid.csv").write_text(CSV, encoding="utf-8", newline="")

    result = send(
        "paid.csv",
        *("--map", "user_id=customer", "--map", "event_properties.zip=zip:text"),
        *("--set", "event_type=Paid", "--set", "user_properties.plan=pro"),
    )

    first, second = background_emulator.events
    assert result.exit_code == 1
    assert "line 6: the row has 2 cells, the header has 5" in result.stdout
    assert first["event_properties"] == {"total": 9.5, "zip": "00700"}
    assert (first["event_type"], first["user_id"]) == ("Paid", "user-1")
    assert (first["time"], second["time"]) == (1769860800000, 1790000000000)
    assert first["user_properties"] == {"plan": "pro"}
    assert second["event_properties"] == {
        "total": 12,
        "zip": "8,01",
        "note": "two\nlines",
    }


def test_columns_may_be_left_out(background_emulator: Emulator) -> None:
    """With --only-mapped nothing goes that was not named; a tab may part cells."""
    Path("paid.tsv").write_text("who\tsecret\nuser-1\tx\n")

    result = send(
        "paid.tsv", "--map", "user_id=who", "--set", "event_type=A", "--only-mapped"
    )
    # A .tsv is CSV by its name.
    [found] = background_emulator.events
    assert result.exit_code == 0
    assert "event_properties" not in found


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["none.jsonl"], "there is no file none.jsonl"),
        (["."], ". is a directory"),
        (["a.jsonl", "--user", "user-1"], "--user goes with one event"),
        (["a.jsonl", "total=1"], "total=1 goes with one event"),
        (["Paid", "--rate", "4"], "--rate goes with a file"),
        (["Paid", "total"], "total is no property: write total=value"),
        (["Paid", "=1"], "=1 is no property"),
        (["  "], "the name of the event is empty"),
        ([""], "the name of the event is empty"),
        (["a.jsonl", "--map", "user_id=x"], "--map goes with CSV"),
        (["a.jsonl", "--format", "xml"], "choose auto, json or csv"),
        (["a.jsonl", "--set", "user_id"], "write a place and a value"),
        (["a.jsonl", "--set", "usr_id=1"], "did you mean user_id?"),
        (["a.jsonl", "--set", "event_properties=1"], "name one"),
        (["a.jsonl", "--set", "time=noon"], "is no time"),
        (["a.csv", "--delimiter", "::"], "give one character"),
        (["a.csv", "--map", "user_id"], "write a place and a column"),
        (["a.csv", "--map", "user_id=custmer"], "did you mean customer?"),
        (["a.csv", "--map", "user_id=x"], "--set user_id=x"),
        (["a.csv", "--map", "total=customer"], "event_properties.total"),
        (["a.csv", "--map", "user_id=customer", "--map", "user_id=b"], "both go to"),
        (["semicolon.csv"], "try --delimiter ';'"),
        (["twice.csv"], "two columns have the name a"),
        (["empty.csv"], "0 delivered"),
        (["zip.gz"], "it is a zip archive"),
        (["-", "--name", "x"], "--name goes with --checkpoint"),
        (["-", "--checkpoint", "x"], "needs a --name"),
        (["a.jsonl", "--rejected", "a.csv"], "--rejected a.csv exists"),
        (["a.jsonl", "--checkpoint", "a.csv"], "is no checkpoint"),
        (["a.jsonl", "--checkpoint", "no/x"], "cannot be written"),
        (["a.jsonl", "--zone", "MARS"], "server_zone"),
        (["Paid", "--time", "noon"], "--time noon is no time"),
        (["Paid", "--set", "price=x"], "price='x'"),
    ],
)
def test_a_wrong_command_does_nothing(
    background_emulator: Emulator, words: list[str], problem: str
) -> None:
    """Code 2, one line that says what to write instead, and nothing is sent."""
    written("a.jsonl", [])
    Path("a.csv").write_text("customer,b\n")
    Path("semicolon.csv").write_text("a;b\n1;2\n")
    Path("twice.csv").write_text("a,a\n1,2\n")
    Path("empty.csv").write_text("")
    Path("zip.gz").write_bytes(b"PK\x03\x04rest")

    result = send(*words)

    if "delivered" in problem:
        assert result.exit_code == 0
        assert problem in result.stdout
        return
    assert result.exit_code == 2
    assert problem in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert background_emulator.stats.requests == 0


def test_a_dry_run_sends_nothing_and_needs_no_key(
    background_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the lines that the door would refuse, and leaves no file."""
    monkeypatch.delenv("AMPLITUDE_API_KEY")
    monkeypatch.delenv("AMPLITUDE_SERVER_URL")
    name = written("events.jsonl", [event(1), event(2, user_id="ab")])

    result = send(name, "--dry-run")

    assert result.exit_code == 1
    assert "1 would be sent, 1 rejected" in result.stdout
    assert background_emulator.stats.requests == 0
    assert [one.name for one in Path().iterdir()] == [name]


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable; an emulator on this machine needs no key."""
    name = written("events.jsonl", [event(1)])
    monkeypatch.delenv("AMPLITUDE_API_KEY")
    assert send(name).exit_code == 0
    monkeypatch.delenv("AMPLITUDE_SERVER_URL")

    result = send(name)

    assert result.exit_code == 2
    assert "set AMPLITUDE_API_KEY" in result.stderr


def test_a_key_on_the_command_line_is_warned_of() -> None:
    """Others can read it in the list of processes; it is not repeated."""
    result = send("Paid", "--user", "user-1", "--api-key", KEY)

    assert result.exit_code == 0
    assert "set AMPLITUDE_API_KEY instead" in result.stderr
    assert KEY not in result.output


# Going on ---------------------------------------------------------------------


def test_a_file_that_was_sent_is_not_sent_again(background_emulator: Emulator) -> None:
    """The checkpoint says so, until --restart; then the ids are the same."""
    name = written("events.jsonl", [event(n) for n in range(5)])
    assert send(name).exit_code == 0

    again, forced = send(name), send(name, "--restart")

    assert again.exit_code == forced.exit_code == 0
    assert "was sent before: 5 delivered" in again.stdout
    assert numbers(background_emulator) == [*range(5)]
    assert background_emulator.stats.duplicates == 5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda: written("events.jsonl", [event(9)]), "this one has changed"),
        (lambda: os.environ.update(AMPLITUDE_API_KEY="f" * 32), "destination or key"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    change: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is taken for sent that was not."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    name = written("events.jsonl", [event(1)])
    assert send(name).exit_code == 0
    change()

    result = send(name)

    assert result.exit_code == 2
    assert problem in result.stderr
    assert "--restart" in result.stderr


def command(name: str, *more: str) -> list[str]:
    """Return the command as a process of its own."""
    return [sys.executable, "-m", "amplitude_async", "send", name, *more]


def wait_for_checkpoint(path: Path, line: int, process: Any) -> None:
    """Wait until a checkpoint has come so far."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if path.exists() and json.loads(path.read_text())["line"] >= line:
            return
        assert process.poll() is None
        time.sleep(0.02)
    pytest.fail(f"{path} never came to line {line}")


def test_after_two_kills_each_event_is_there_once(
    background_emulator: Emulator,
) -> None:
    """SIGKILL half-way, twice: the third run ends it, nothing is lost or doubled."""
    lines: list[Any] = [event(n) for n in range(3_000)]
    for number in (10, 1_500, 2_990):
        lines[number] = "bad"
    name = written("events.jsonl", lines)
    mark = Path("events.jsonl.checkpoint")
    for line in (300, 1_600):
        slow = command(name, "--rate", "900", "--rejected", "bad.jsonl")
        process = subprocess.Popen(
            slow, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for_checkpoint(mark, line, process)
        finally:
            process.kill()
            process.wait(TIMEOUT)

    result = send(name, "--rejected", "bad.jsonl", "--json")

    report = json.loads(result.stdout)
    kept = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert result.exit_code == 1
    assert report["resumed_after_line"] >= 1_600
    assert report["complete"]
    assert (report["delivered"], report["rejected"]) == (2_997, 3)
    assert [one["line"] for one in kept] == [11, 1_501, 2_991]
    assert numbers(background_emulator) == [
        n for n in range(3_000) if n not in {10, 1_500, 2_990}
    ]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_ctrl_c_leaves_a_checkpoint(
    background_emulator: Emulator, number: signal.Signals, code: int
) -> None:
    """It ends in order, says how to go on, and the same command does."""
    name = written("events.jsonl", [event(n) for n in range(900)])
    process = subprocess.Popen(
        command(name, "--rate", "500"), stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for_checkpoint(Path("events.jsonl.checkpoint"), 1, process)
        process.send_signal(number)
        shown, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()

    assert process.returncode == code
    assert "Stopped: interrupted" in shown
    assert "The same command goes on there." in shown
    assert send(name).exit_code == 0
    assert numbers(background_emulator) == [*range(900)]


def test_standard_input_is_sent(background_emulator: Emulator) -> None:
    """A pipe is read to its end; without a name, nothing is kept of it."""
    text = "".join(json.dumps(event(n)) + "\n" for n in range(10))

    finished = subprocess.run(
        command("-"),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )

    assert (finished.returncode, finished.stderr) == (0, "")
    assert "standard input: 10 delivered" in finished.stdout
    assert numbers(background_emulator) == [*range(10)]
    assert [*Path().iterdir()] == []


def test_a_named_pipe_goes_on(background_emulator: Emulator) -> None:
    """With --name and --checkpoint, a second run skips what the first has sent."""
    words = command("-", "--name", "nightly", "--checkpoint", "mark")
    for text in (b'{"event_type": "A", "user_id": "user-1"}\n',) * 2:
        finished = subprocess.run(
            words, input=text, capture_output=True, check=False, timeout=TIMEOUT
        )
        assert finished.returncode == 0

    assert b"was sent before" in finished.stdout
    assert len(background_emulator.events) == 1
    assert background_emulator.stats.duplicates == 0


# What goes wrong ---------------------------------------------------------------


def test_a_refused_key_rejects_no_line(background_emulator: Emulator) -> None:
    """The run stops, says why, and the lines are still to be sent."""
    background_emulator.faults.add(Fault(status=401, count=None))
    name = written("events.jsonl", [event(n) for n in range(50)])

    result = send(name, "--json")
    background_emulator.faults.clear()
    again = send(name)

    report = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (report["delivered"], report["rejected"]) == (0, 0)
    assert report["stopped"]
    assert again.exit_code == 0
    assert numbers(background_emulator) == [*range(50)]


def test_a_server_that_is_away_ends_the_run_in_time(
    background_emulator: Emulator,
) -> None:
    """After --timeout the run gives up, and the checkpoint is where it was."""
    background_emulator.faults.add(Fault(status=503, count=None))
    name = written("events.jsonl", [event(n) for n in range(5)])

    result = send(name, "--timeout", "0.5")
    background_emulator.faults.clear()

    assert result.exit_code == 3
    assert "nothing was taken for 0.5 s" in result.stdout
    assert "waiting: " in result.stderr
    assert send(name).exit_code == 0
    assert numbers(background_emulator) == [*range(5)]


def test_a_cut_gz_file_ends_as_incomplete(background_emulator: Emulator) -> None:
    """What could be read is sent, and the rest is told of."""
    text = "".join(
        json.dumps(event(n, insert_id=os.urandom(9).hex())) + "\n"
        for n in range(20_000)
    )
    packed = gzip.compress(text.encode())
    Path("export.json.gz").write_bytes(packed[: len(packed) // 2])

    result = send("export.json.gz", "--timeout", "5")

    assert result.exit_code == 3
    assert "Stopped: " in result.stdout


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"$insert_id": None}, {"insert_id": EXPORTED["uuid"]}),
        ({"event_time": None}, {"time": 1780956791000}),
        ({"event_time": 1780956790123}, {"time": 1780956790123}),
        ({"event_type": "$groupidentify", "group_properties": {"a": 1}}, {}),
    ],
)
def test_each_kind_of_exported_line_is_read(
    background_emulator: Emulator, change: dict[str, Any], found: dict[str, Any]
) -> None:
    """What is missing in one place is taken from the next."""
    name = written("export.json", [{**EXPORTED, **change}])

    assert send(name).exit_code == 0
    [event_] = background_emulator.events
    assert event_.items() >= found.items()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('user_id,a\nuser-1,"open\nstill', "does not end"),
        ('user_id,a\nuser-1,a"b"c\n', None),
        ('user_id,a\nuser-1,"a"b\n', "no CSV"),
        ("user_id,time\nuser-1,noon\n", "time='noon' is no time"),
        ("user_id,a\n\n\n", None),
        ('user_id,a\nuser-1,"' + "x\n" * 1_100 + "y\n", "does not end"),
    ],
)
def test_a_row_that_is_none_is_told(text: str, problem: str | None) -> None:
    """It costs its own lines and no others."""
    Path("rows.csv").write_text(text)

    result = send("rows.csv", "--set", "event_type=A")

    assert result.exit_code == (0 if problem is None else 1)
    if problem is not None:
        assert problem in result.stdout


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1}', '{"version": 9}', "[" * 100_000],
)
def test_a_checkpoint_that_is_none_is_refused(text: str) -> None:
    """No file of another kind is written over."""
    name = written("events.jsonl", [event(1)])
    Path("events.jsonl.checkpoint").write_text(text)

    result = send(name)

    assert result.exit_code == 2
    assert "is no checkpoint" in result.stderr
    assert Path("events.jsonl.checkpoint").read_text() == text


@pytest.mark.parametrize("contents", ['{"line": 1, "a": 2}\n', "mine\n", "mine"])
def test_no_file_of_another_kind_is_written_over(
    background_emulator: Emulator, contents: str
) -> None:
    """Neither --rejected nor --checkpoint takes a file that is not its own."""
    name = written("events.jsonl", [event(n) for n in range(3)])
    whole, mark = Path(name).read_bytes(), Path("events.jsonl.checkpoint")
    assert send(name).exit_code == 0
    begun = json.dumps(
        {**json.loads(mark.read_text()), "line": 0, "last": "", "complete": False}
    )
    Path("mine.txt").write_text(contents)
    for words in (
        ["--rejected", "mine.txt"],
        ["--rejected", name],
        ["--rejected", mark.name],
        ["--restart", "--checkpoint", "mine.txt"],
        ["--restart", "--checkpoint", name],
    ):
        mark.write_text(begun)

        result = send(name, *words)

        assert result.exit_code == 2, words
        assert "another name" in result.stderr or "a new name" in result.stderr
        assert Path("mine.txt").read_text() == contents
        assert Path(name).read_bytes() == whole
        assert json.loads(mark.read_text()) == json.loads(begun)
    assert len(background_emulator.events) == 3


def test_the_next_run_keeps_what_the_first_wrote_of_rejected_lines(
    background_emulator: Emulator,
) -> None:
    """Lines behind the checkpoint, and one that a kill has torn, are told anew."""
    name = written("events.jsonl", ["bad", event(1), "bad"])
    assert send(name, "--rejected", "bad.jsonl").exit_code == 1
    mark = Path("events.jsonl.checkpoint")
    begun = {**json.loads(mark.read_text()), "line": 1, "rejected": 1}
    first = hashlib.blake2b(b"bad", digest_size=16, person=b"last").hexdigest()
    mark.write_text(json.dumps({**begun, "last": first, "complete": False}))
    whole = Path("bad.jsonl").read_text()
    Path("bad.jsonl").write_text(whole + '{"line": 4, "rea')

    assert send(name, "--rejected", "bad.jsonl").exit_code == 1

    assert Path("bad.jsonl").read_text() == whole
    assert not Path("bad.jsonl.new").exists()
    assert len(background_emulator.events) == 1


def test_what_is_refused_changes_nothing(background_emulator: Emulator) -> None:
    """A wrong option leaves the checkpoint where it was, and no new file behind."""
    name = written("events.jsonl", [event(1)])
    assert send(name).exit_code == 0
    mark = Path("events.jsonl.checkpoint")
    begun = mark.read_text()
    Path("taken").write_text("mine")

    refused = send(name, "--restart", "--rejected", "taken")
    unwritable = send(name, "--checkpoint", "taken/x", "--rejected", "bad.jsonl")

    assert (refused.exit_code, unwritable.exit_code) == (2, 2)
    assert mark.read_text() == begun
    assert sorted(one.name for one in Path().iterdir()) == [name, mark.name, "taken"]
    assert len(background_emulator.events) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_two_runs_do_not_share_a_checkpoint(background_emulator: Emulator) -> None:
    """The second one is refused, and the first one goes on undisturbed."""
    name = written("events.jsonl", [event(n) for n in range(600)])
    first = subprocess.Popen(
        command(name, "--rate", "400"), stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for_checkpoint(Path("events.jsonl.checkpoint"), 0, first)
        second = send(name)
        elsewhere = send(name, "--checkpoint", "other")
        shown, _ = first.communicate(timeout=TIMEOUT)
    finally:
        first.kill()

    assert (second.exit_code, elsewhere.exit_code) == (2, 0)
    assert "another run has the checkpoint events.jsonl.checkpoint" in second.stderr
    assert (first.returncode, "600 delivered" in shown) == (0, True)
    assert numbers(background_emulator) == [*range(600)]
    assert not Path("events.jsonl.checkpoint.lock").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_among_files_has_no_checkpoint() -> None:
    """It says so, where one was asked for."""
    os.mkfifo("pipe")
    # Opened for both, so that neither side waits for the other.
    with Path("pipe").open("r+b", buffering=0) as pipe:
        pipe.write(b'{"event_type": "A"}\n')
        result = send("pipe", "--checkpoint", "mark")

    assert result.exit_code == 2
    assert "standard input, with - and a --name" in result.stderr


def test_limits_of_a_service_are_none_of_a_file(
    background_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable that lets a service shed, give up or cut events costs a line."""
    for name, value in {
        "MAX_STORAGE_CAPACITY": "10",
        "MAX_STORAGE_BYTES": "2000",
        "OVERFLOW": "raise",
        "FLUSH_MAX_RETRIES": "0",
        "MAX_EVENT_AGE": "0.001",
        "TRUNCATE_STRINGS": "2",
    }.items():
        monkeypatch.setenv(f"AMPLITUDE_{name}", value)
    background_emulator.faults.add(Fault(status=503, count=2))
    name = written("events.jsonl", [event(n, app_version="1.2.3") for n in range(90)])

    result = send(name)

    assert result.exit_code == 0, result.stdout
    assert numbers(background_emulator) == [*range(90)]


def test_a_damaged_gz_file_ends_as_incomplete() -> None:
    """Whatever is wrong with it, what stands before that counts."""
    text = "".join(json.dumps(event(n, insert_id=f"id-{n}")) + "\n" for n in range(99))
    packed = bytearray(gzip.compress(text.encode(), mtime=0))
    # The first block is of a kind that does not exist.
    packed[10] |= 0b110
    Path("export.json.gz").write_bytes(packed)

    result = send("export.json.gz")

    assert result.exit_code == 3
    assert "Stopped: the gzip file is cut off or damaged" in result.stdout


# A file that grows beyond this is as a disk that is full.
FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from amplitude_async.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
@pytest.mark.parametrize("number", [200, 250, 5_000])
@pytest.mark.parametrize("piped", [False, True])
def test_a_full_disk_ends_as_incomplete(number: int, piped: bool) -> None:
    """No line counts as told of where the file of rejected ones cannot hold it."""
    name = written("events.jsonl", ["bad"] * number)
    words = ("--rejected", "bad.jsonl", "--json")
    finished = subprocess.run(
        [sys.executable, "-c", FULL, "send", "-" if piped else name, *words],
        # Who counts the lines of it would find the disk full as well.
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")},
        input=Path(name).read_text() if piped else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )

    assert finished.returncode == 3, finished.stderr
    assert json.loads(finished.stdout)["stopped"]
    assert "Traceback" not in finished.stderr
    if not piped:
        mark = json.loads(Path("events.jsonl.checkpoint").read_text())
        assert mark["line"] <= Path("bad.jsonl").read_bytes().count(b"\n")


def test_packed_files_may_follow_one_another(background_emulator: Emulator) -> None:
    """As they come out of the archive that an export is."""
    hours = [f"{json.dumps(event(n))}\n".encode() for n in range(3)]
    finished = subprocess.run(
        command("-", "--name", "export", "--checkpoint", "mark"),
        input=b"".join(map(gzip.compress, hours)),
        capture_output=True,
        check=False,
        timeout=TIMEOUT,
    )

    assert finished.returncode == 0
    assert numbers(background_emulator) == [0, 1, 2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"api_key": KEY, "events": [event(1)]}, "jq -c '.events[]'"),
        (event(1, api_key=KEY), "api_key is no field of an event"),
    ],
)
def test_a_key_in_a_line_is_not_shown(line: Any, reason: str) -> None:
    """A body that was kept is no event, and says how it becomes some."""
    result = send(written("bodies.jsonl", [line]))

    assert result.exit_code == 1
    assert reason in result.stdout
    assert KEY not in result.stdout + result.stderr


def test_rejected_lines_are_shown_in_their_order() -> None:
    """Also where some are known at once, and others as soon as the client looks."""
    name = written("events.jsonl", [event(1, user_id="ab"), "bad", event(3, price="x")])

    shown = send(name, "--json").stdout

    assert [one["line"] for one in json.loads(shown)["rejections"]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ([event(7), event(8), event(9)], "line 2 is not the one"),
        ([event(1)], "the input ends before the line"),
    ],
)
def test_a_named_input_that_has_changed_is_noticed(
    background_emulator: Emulator, second: list[Any], problem: str
) -> None:
    """Lines of another stream are not passed over as if they were sent."""
    words = command("-", "--name", "nightly", "--checkpoint", "mark")
    first = "".join(json.dumps(event(n)) + "\n" for n in (1, 2))
    subprocess.run(words, input=first.encode(), check=True, timeout=TIMEOUT)
    mark = json.loads(Path("mark").read_text())
    Path("mark").write_text(json.dumps({**mark, "complete": False}))

    text = "".join(json.dumps(one) + "\n" for one in second)
    finished = subprocess.run(
        words, input=text, text=True, capture_output=True, check=False, timeout=TIMEOUT
    )

    assert finished.returncode == 2
    assert problem in finished.stderr
    assert len(background_emulator.events) == 2


# Not ru_maxrss, in which a child begins with what its parent had.
MEASURED = """
import atexit, re, sys
from pathlib import Path
status = Path("/proc/self/status")
peak = lambda: re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]
atexit.register(lambda: print("peak", peak(), file=sys.stderr))
from amplitude_async.cli import main
main()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_bounded(background_emulator: Emulator) -> None:
    """30,000 lines of 1 kB are never in memory at once: it stays below 150 MB."""
    padding = "x" * 900
    name = written(
        "big.jsonl",
        (event(n, event_properties={"n": n, "p": padding}) for n in range(30_000)),
    )

    finished = subprocess.run(
        [sys.executable, "-c", MEASURED, "send", name, "--batch"],
        env={**os.environ, "AMPLITUDE_SERVER_URL": background_emulator.batch_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )

    assert finished.returncode == 0, finished.stderr
    assert int(finished.stderr.split("peak ")[1]) < 150_000
    assert background_emulator.stats.events_ingested == 30_000


# One event ---------------------------------------------------------------------


def test_one_event_is_sent(background_emulator: Emulator) -> None:
    """Values are JSON where they are that, and the answer is printed."""
    result = send(
        *("Paid", "--user", "user-1", "--device", "device-1", "--insert-id", "i-1"),
        *("total=9.5", "order=o-1", "paid=true", 'items=["a"]', "nan=NaN"),
        *("user_properties.plan=pro", "groups.company=42", "a.b=1"),
        *("--time", "2026-01-31T12:00:00Z", "--set", "price=3"),
    )

    [found] = background_emulator.events
    assert result.exit_code == 0
    assert result.stdout.startswith("delivered: Paid of user-1 - HTTP 200 from http://")
    assert found.pop("library")
    assert found == {
        "device_id": "device-1",
        "event_properties": {
            "total": 9.5,
            "order": "o-1",
            "paid": True,
            "items": ["a"],
            "nan": "NaN",
            "a.b": 1,
        },
        "event_type": "Paid",
        "groups": {"company": "42"},
        "insert_id": "i-1",
        "price": 3,
        "time": 1769860800000,
        "user_id": "user-1",
        "user_properties": {"plan": "pro"},
    }


def test_an_event_that_is_not_taken_says_why(background_emulator: Emulator) -> None:
    """1 where it was rejected, 3 where nobody took it."""
    short = send("Paid", "--user", "ab")
    background_emulator.faults.add(Fault(status=401, count=None))
    refused = send("Paid", "--user", "user-1", "--json")

    assert (short.exit_code, refused.exit_code) == (1, 3)
    assert "rejected: Paid of ab - user_id 'ab' has 2" in short.stdout
    report = json.loads(refused.stdout)
    assert (report["status"], report["code"]) == ("not delivered", 401)
    assert report["event"]["user_id"] == "user-1"


def test_an_event_waits_only_so_long(background_emulator: Emulator) -> None:
    """A server that takes nothing is not waited for without an end."""
    background_emulator.faults.add(Fault(status=503, count=None))

    result = send("Paid", "--user", "user-1", "--timeout", "0.3")

    assert result.exit_code == 3
    assert "not within 0.3 s" in result.stdout


@pytest.mark.parametrize(("user", "code"), [("user-1", 0), ("ab", 1)])
def test_one_event_can_be_checked_alone(
    background_emulator: Emulator, user: str, code: int
) -> None:
    """A dry run shows the event as it would go on the wire."""
    result = send("Paid", "--user", user, "--dry-run", "--json")

    report = json.loads(result.stdout)
    assert result.exit_code == code
    assert report["event"]["event_type"] == "Paid"
    assert background_emulator.stats.requests == 0


def test_a_name_that_is_too_long_for_a_file_is_an_event(
    background_emulator: Emulator,
) -> None:
    """The system refuses to look for such a file; that is no failure."""
    result = send("N" * 1_000, "--user", "user-1")

    assert result.exit_code == 0
    assert background_emulator.events[0]["event_type"] == "N" * 1_000


def test_a_file_may_have_the_name_of_an_event(background_emulator: Emulator) -> None:
    """--event sends the event, whatever lies there."""
    written("Paid", [])

    assert send("Paid", "--event", "--user", "user-1").exit_code == 0
    assert send("a/b.csv", "--event", "--user", "user-1").exit_code == 0
    assert [one["event_type"] for one in background_emulator.events] == [
        "Paid",
        "a/b.csv",
    ]


def test_what_a_file_holds_does_not_steer_the_terminal() -> None:
    """Names and reasons are shown with what is no letter spelt out."""
    name = written("\x1b[31mred.jsonl", [event(1, user_id="\x1b[2J")])

    result = send(name)

    assert result.exit_code == 1
    assert "\x1b" not in result.output


def test_bytes_of_any_kind_are_lines(background_emulator: Emulator) -> None:
    """No file ends in a traceback."""
    Path("odd.jsonl").write_bytes(
        b"\xff\xfe\n" + b"[" * 100_000 + b"\n" + b"x" * 5_000_000 + b"\n"
        b'{"event_type": "A", "user_id": "user-1", "price": NaN}\n'
        b'{"event_type": "\\ud800", "user_id": "user-1"}\n\x00\n'
        + json.dumps(event(7)).encode()
    )

    result = send("odd.jsonl", "--json")

    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["line"] == 7
    assert numbers_of(report["rejections"])[:4] == [1, 2, 3, 4]
    assert {"n": 7} in [
        one.get("event_properties") for one in background_emulator.events
    ]


def numbers_of(rejections: Sequence[dict[str, Any]]) -> list[int]:
    """Return the numbers of rejected lines, sorted."""
    return sorted(one["line"] for one in rejections)
