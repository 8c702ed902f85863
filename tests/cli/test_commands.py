"""The commands as a user types them, in processes of their own."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from amplitude_async import Amplitude, __version__
from amplitude_async.emulator import Emulator
from tests.cli.conftest import command_process, next_line

__all__: list[str] = []

TIMEOUT = 100.0
COMMAND = [sys.executable, "-m", "amplitude_async"]
GOOD = "00004 0001 19970101 2 29.33\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return _ended([*COMMAND, *arguments])


def run_program(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program that does something to the commands first."""
    return _ended([sys.executable, "-c", text])


def _ended(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, capture_output=True, check=False, text=True, timeout=TIMEOUT
    )


def test_the_demo_accounts_for_the_whole_log() -> None:
    """Every purchase of the real log arrives once, and the sums agree to the cent."""
    finished = run("demo", "--json")

    report = json.loads(finished.stdout)
    sums = {
        "purchases": 6919,
        "customers": 2357,
        "units": 16479,
        "revenue": "244091.94",
    }
    assert (finished.returncode, finished.stderr) == (0, "")
    assert report["emulator"] == report["log"] == sums
    assert report["served"] == report["accepted"] == report["delivered"] == 6919
    assert report["balanced"]
    assert report["customers_in_order"] == 2357
    assert (report["ok"], report["problems"]) == (True, [])


def test_the_demo_prints_a_table() -> None:
    """Without --json the report is for people, and a limit shortens the run."""
    finished = run("demo", "--limit", "20")

    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.search(r"requests served\W+20\b", finished.stdout)
    assert re.search(r"purchases\W+20\W+20\W+yes", finished.stdout)
    assert "All 20 purchases arrived, each once and in order" in finished.stdout


def test_the_demo_fails_when_a_purchase_is_missing(tmp_path: Path) -> None:
    """A purchase that does not arrive is an exit code of 1, and told why."""
    log = tmp_path / "log.txt"
    log.write_text(GOOD + "undefined 0002 19970101 1 5.00\n")

    finished = run("demo", "--log", str(log))

    assert finished.returncode == 1
    assert "purchases at the emulator: 1, in the log: 2" in finished.stdout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD + "00004 0001 19970101 2 cheap\n", "line 2: amount='cheap': give dollar"),
        (None, "No such file"),
    ],
)
def test_a_log_that_cannot_be_read_is_refused(
    tmp_path: Path, text: str | None, problem: str
) -> None:
    """The command says what is wrong with the log in one line, and does nothing."""
    log = tmp_path / "log.txt"
    if text is not None:
        log.write_text(text)

    finished = run("demo", "--log", str(log))

    assert finished.returncode == 2
    assert problem in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_the_version_is_printed() -> None:
    """`--version` tells what is installed."""
    assert run("--version").stdout.strip() == __version__


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_a_missing_extra_is_named(missing: str) -> None:
    """Without the extra the command says in one line how to install it."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from amplitude_async.cli import main; main()"
    )
    finished = run_program(program)

    assert finished.returncode == 2
    assert finished.stdout == ""
    assert len(finished.stderr.splitlines()) == 1
    assert 'pip install "amplitude-async[cli]"' in finished.stderr


def test_ctrl_c_while_it_starts_is_no_traceback() -> None:
    """It ends as with Ctrl-C at any later moment."""
    program = (
        "import sys\n"
        "class Interrupts(type(sys)):\n"
        "    def __getattr__(self, name): raise KeyboardInterrupt\n"
        "sys.modules['amplitude_async.cli.app'] = Interrupts('app')\n"
        "from amplitude_async.cli import main; main()"
    )
    finished = run_program(program)

    assert finished.returncode == 130
    assert finished.stdout + finished.stderr == ""


def test_another_missing_module_is_no_missing_extra() -> None:
    """A broken installation is not explained away."""
    program = (
        "import sys; sys.modules['amplitude_async.cli.demo.run'] = None\n"
        "from amplitude_async.cli import main; main()"
    )
    finished = run_program(program)

    assert finished.returncode == 1
    assert "ModuleNotFoundError" in finished.stderr


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_the_emulator_runs_until_it_is_stopped(stop: signal.Signals) -> None:
    """It prints its address, each event, and a summary when a signal ends it."""
    async with command_process("emulator", "--port", "0") as process:
        greeting = [await next_line(process) for _ in range(4)]
        (address,) = re.findall(r"AMPLITUDE_SERVER_URL=(\S+)", greeting[1])
        assert address.removesuffix("/2/httpapi") in greeting[0]
        assert f"curl {address} -d" in greeting[2]
        async with Amplitude("key", server_url=address, trust_env=False) as client:
            assert (await (await client.track("Hello", user_id="user-1"))).ok
        assert "  Hello  user-1  stored" in await next_line(process)
        process.send_signal(stop)
        rest, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)

    assert process.returncode == 0
    summary = "1 event stored, 0 duplicates, 0 rejected; 1 request (1 x 200)."
    assert rest.decode() == f"{summary}\n"


async def test_the_example_request_of_the_emulator_works() -> None:
    """What the greeting offers to curl is accepted."""
    async with command_process("emulator", "--port", "0") as process:
        greeting = "".join([await next_line(process) for _ in range(4)])
        found = re.search(r"curl (\S+) -d '(.*)'", greeting)
        assert found
        async with (
            aiohttp.ClientSession() as session,
            session.post(found[1], data=found[2].encode()) as response,
        ):
            assert response.status == 200


async def test_a_taken_port_is_refused(emulator: Emulator) -> None:
    """The message names host and port, and offers another."""
    finished = await asyncio.to_thread(run, "emulator", "--port", str(emulator.port))

    assert finished.returncode == 2
    assert f"127.0.0.1 port {emulator.port}" in finished.stderr
    assert "choose another --port" in finished.stderr


def test_another_machine_is_let_in_only_when_asked() -> None:
    """A host that others can reach needs a word of consent."""
    finished = run("emulator", "--host", "0.0.0.0", "--port", "0")  # noqa: S104

    assert finished.returncode == 2
    assert "add --allow-remote" in finished.stderr
