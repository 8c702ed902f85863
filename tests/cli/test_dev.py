"""The command `dev`: another command beside an emulator that it sends to."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from amplitude_async.cli.browsing import choose_port, has_display
from amplitude_async.cli.dev.variables import opted_out, variables_for
from amplitude_async.emulator import Emulator

if sys.platform == "win32":
    pytest.skip("process groups are not Windows'", allow_module_level=True)

__all__: list[str] = []

TIMEOUT = 60.0
DEV = (sys.executable, "-m", "amplitude_async", "dev")
TRACK = """
import asyncio
from amplitude_async import Amplitude
async def main():
    async with Amplitude.from_env() as client:
        print((await (await client.track("Paid", user_id="user-1"))).status)
        await client.track("Paid", user_id="ab")
asyncio.run(main())
"""
# Says that it is there, and what ended it.
WAIT = """
import signal, sys, time
def told(number, frame):
    print(signal.Signals(number).name, flush=True)
    sys.exit(3)
signal.signal(signal.SIGINT, told)
signal.signal(signal.SIGTERM, told)
print("up", flush=True)
while True:
    time.sleep(0.01)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


def environment(**changes: str) -> dict[str, str]:
    """Return an environment without a display, a key or a browser."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "AMPLITUDE_API_KEY")
    kept = {name: text for name, text in os.environ.items() if name not in names}
    return kept | changes


def run(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `dev` to its end."""
    return subprocess.run(
        [*DEV, *words],
        env=environment(**changes),
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT,
    )


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Start `dev` with a command that says when it is up; leave nothing behind."""
    process = subprocess.Popen(
        [*DEV, "--port", "0", *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=TIMEOUT)
        process.stdout.close()


def python(program: str) -> tuple[str, ...]:
    """Return the command that runs a program."""
    return ("--", sys.executable, "-c", program)


def is_running(pid: int) -> bool:
    """Say whether a process runs, and is no remains of one."""
    state = Path(f"/proc/{pid}/stat")
    with suppress(OSError):
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_what_the_command_tracks_arrives() -> None:
    """Nothing has to be set: no key, no address; its output is its own."""
    finished = run("--port", "0", *python(TRACK))

    assert finished.returncode == 0
    assert finished.stdout == "delivered\n"
    told = finished.stderr.splitlines()
    assert re.fullmatch(r"Emulator on http://127.0.0.1:\d+ - open it .*", told[0])
    assert "1 event stored, 0 duplicates, 0 rejected, 1 rejected or dropped" in told[-1]
    assert not any("Paid" in line for line in told)


def test_events_are_printed_when_asked_for() -> None:
    """Each with its verdict, what the client itself rejected too; on standard error."""
    finished = run("--events", "--port", "0", *python(TRACK))

    assert finished.stdout == "delivered\n"
    assert re.search(r"  Paid  user-1  stored$", finished.stderr, re.MULTILINE)
    assert re.search(r"  Paid  ab  rejected locally: ", finished.stderr)


def test_the_command_finds_its_variables() -> None:
    """Addresses of the emulator, keys where none are set, and no proxy for it."""
    with Emulator() as emulator:
        given = {"AMPLITUDE_API_KEY": "mine", "NO_PROXY": "example.com", "PATH": "/bin"}
        found = variables_for(emulator, given)
        assert found["AMPLITUDE_SERVER_URL"] == emulator.httpapi_url
        assert found["AMPLITUDE_INSPECT"] == emulator.url
        assert found["MPARTICLE_BASE_URL"] == emulator.mparticle_url
    assert (found["AMPLITUDE_API_KEY"], found["PATH"]) == ("mine", "/bin")
    assert found["MPARTICLE_API_KEY"]
    assert found["MPARTICLE_API_SECRET"]
    assert found["NO_PROXY"] == "example.com,127.0.0.1"
    assert found["no_proxy"] == "127.0.0.1"
    assert "MPARTICLE_API_KEY" not in given


def test_who_opted_out_is_told() -> None:
    """A page that stays empty needs a reason."""
    finished = run("--port", "0", *python("pass"), AMPLITUDE_OPT_OUT="true")

    assert "AMPLITUDE_OPT_OUT is set" in finished.stderr
    assert not opted_out({"AMPLITUDE_OPT_OUT": "false"})


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_its_exit_code_is_ours(program: str, code: int) -> None:
    """As a shell has it: 128 and the number where a signal ended it."""
    assert run("--port", "0", *python(program)).returncode == code


def test_options_of_the_command_are_its_own() -> None:
    """With or without `--` before it."""
    words = (sys.executable, "-c", "import sys; print(sys.argv[1:])", "--port", "-h")
    for before in ((), ("--",)):
        finished = run("--port", "0", *before, *words)
        assert finished.stdout == "['--port', '-h']\n"


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("no-such-program", 127, "No such file"),
        (str(Path(__file__)), 126, "Permission"),
    ],
)
def test_a_command_that_cannot_be_started_is_told(
    name: str, code: int, why: str
) -> None:
    """Its name, the reason and what to do, without a traceback."""
    finished = run("--port", "0", "--", name)

    assert finished.returncode == code
    assert f"Error: cannot start '{name}'"[:80] in finished.stderr
    assert why in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_port_that_is_taken() -> None:
    """One that was asked for is refused; else the next free one is taken."""
    with Emulator() as emulator:
        finished = run("--port", str(emulator.port), *python("pass"))

    assert finished.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {emulator.port}" in finished.stderr
    assert choose_port(None)[:2] == [8080, 8081]
    assert choose_port(None)[-1] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_waited_for(number: signal.Signals) -> None:
    """The command ends as it wants to, both are gone, and there is no traceback."""
    program = WAIT.replace("SIGTERM, told", f"{number.name}, told")
    with started(*python(program)) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)

    assert (process.returncode, out) == (3, f"{number.name}\n")
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("0 events stored")


def test_one_that_does_not_listen_is_killed() -> None:
    """It gets its time to end, and no more."""
    with started("--grace", "0.05", *python(DEAF)) as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 128 + signal.SIGKILL
    assert "did not end within 0.05 s: it was killed" in err


def test_what_the_command_started_ends_with_it(tmp_path: Path) -> None:
    """A reloader's worker does not keep a port for ever, however its parent ended."""
    note = tmp_path / "pid"
    program = (
        "import os, subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {DEAF!r}])\n"
        f"open({str(note)!r}, 'w').write(str(worker.pid))\n"
        "import time; time.sleep(60)"
    )
    with started(*python(program)) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT)

    assert not is_running(int(note.read_text()))


def test_a_reader_that_goes_away_ends_both() -> None:
    """Whoever reads the events may leave: nothing runs on in the dark."""
    program = f"{TRACK}\nimport time\ntime.sleep(60)"
    process = subprocess.Popen(
        [*DEV, "--events", "--port", "0", *python(program)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    process.stderr.close()
    try:
        assert process.wait(TIMEOUT) != 0
    finally:
        process.kill()


class Typist:
    """A person at a terminal, who runs `dev` there."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = os.openpty()
        self._seen = ""
        # The new session's terminal is the first that its leader opens.
        program = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execv(sys.executable, sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *DEV, "--port", "0", *words],
            env=environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def types(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def sees(self, text: str) -> None:
        """Look until a text is on the screen."""
        until = time.monotonic() + TIMEOUT
        while text not in self._seen:
            assert time.monotonic() < until, self._seen
            self._read()

    def leaves(self) -> tuple[int, str]:
        """Wait for the end, and return the exit code and all that was seen."""
        until = time.monotonic() + TIMEOUT
        while self._read():
            assert time.monotonic() < until, self._seen
        return self._process.wait(TIMEOUT), self._seen

    def close(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait(TIMEOUT)
        os.close(self._ours)

    def _read(self) -> bool:
        if not select.select([self._ours], [], [], TIMEOUT)[0]:
            return False
        try:
            found = os.read(self._ours, 4096)
        except OSError:
            return False  # Linux says so where nobody has the other end
        self._seen += found.decode()
        return bool(found)


@contextmanager
def typist(*words: str) -> Iterator[Typist]:
    """Run `dev` at a terminal."""
    one = Typist(*words)
    try:
        yield one
    finally:
        one.close()


def test_ctrl_c_reaches_the_command_once() -> None:
    """Two would be a forced end for many servers; and `dev` ends with it, cleanly."""
    program = WAIT.replace("    sys.exit(3)", "    time.sleep(0.05); sys.exit(3)")
    with typist(*python(program)) as person:
        person.sees("up")
        person.types("\x03")
        code, seen = person.leaves()

    assert code == 3
    assert seen.count("SIGINT") == 1
    assert "Traceback" not in seen
    assert "0 events stored" in seen


def test_ctrl_z_hangs_nobody() -> None:
    """Where no shell could bring both back, they go on."""
    with typist(*python(WAIT)) as person:
        person.sees("up")
        person.types("\x1a")
        person.sees("^Z")
        person.types("\x03")
        code, _ = person.leaves()

    assert code == 3


def test_the_command_reads_what_is_typed() -> None:
    """Debuggers work, which read from the terminal."""
    with typist(*python("print('got', input('name? '))")) as person:
        person.sees("name? ")
        person.types("somebody\n")
        code, seen = person.leaves()

    assert code == 0
    assert "got somebody" in seen


def test_a_browser_needs_a_display() -> None:
    """On a server, over ssh and in CI nothing is opened."""
    assert not has_display({}, "linux")
    assert not has_display({"DISPLAY": ""}, "linux")
    assert has_display({"DISPLAY": ":0"}, "linux")
    assert has_display({"WAYLAND_DISPLAY": "wayland-0"}, "linux")
    assert has_display({}, "darwin")
    assert not has_display({"SSH_CONNECTION": "1 2 3 4"}, "darwin")


@pytest.mark.parametrize("options", [(), ("--no-open",)])
def test_the_page_is_opened(tmp_path: Path, options: tuple[str, ...]) -> None:
    """In the user's browser, unless it shall not be."""
    browser, note = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(
        f'#!/bin/sh\nprintf %s "$1" > {note}.new\nmv {note}.new {note}\n'
    )
    browser.chmod(0o755)
    program = (
        "import os, time\n"
        "until = time.monotonic() + float(os.environ['WAIT'])\n"
        f"while not os.path.exists({str(note)!r}) and time.monotonic() < until:\n"
        "    time.sleep(0.01)"
    )
    finished = run(
        *("--port", "0", *options, *python(program)),
        DISPLAY=":99",
        BROWSER=f"{browser} %s",
        WAIT="0.05" if options else "30",
    )

    assert finished.returncode == 0
    assert note.exists() is not bool(options)
    if not options:
        address = json.dumps(note.read_text())
        assert address.strip('"') in finished.stderr
