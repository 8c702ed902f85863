"""The quickstart as a newcomer follows it: its commands, its files, their events."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the page's commands are a POSIX shell's", allow_module_level=True)

__all__: list[str] = []

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 30


def shown(language: str, mark: str) -> str:
    """Return the first block of a language that has a mark in it."""
    blocks = BLOCK.finditer(PAGE.read_text("utf-8"))
    return next(one[2] for one in blocks if one[1] == language and mark in one[2])


def environment() -> dict[str, str]:
    """Return this one without our variables, and with this interpreter's commands."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("AMPLITUDE_")}
    commands = Path(sys.executable).parent
    return {**kept, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command of ours as the page does, and stop it as by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "amplitude_async", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """Return the next line that has a text in it; the test's time limit is its own."""
    assert process.stdout is not None
    return next(line for line in process.stdout if text in line)


def test_the_first_program_is_seen(tmp_path: Path) -> None:
    """An emulator in one terminal, the file and the commands in another."""
    (tmp_path / "first.py").write_text(shown("python", "Song Played"), "utf-8")
    commands = shown("bash", "python first.py").splitlines()[1:]

    with started(tmp_path, *words_of("emulator"), "--port", "0") as emulator:
        url = line_with(emulator, "Send to it").rpartition("=")[2].strip()
        script = "\n".join(commands).replace("http://127.0.0.1:8080/2/httpapi", url)
        done = subprocess.run(
            ["/bin/sh", "-ec", script],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert url in script
        assert done.stdout.startswith("<DeliveryResult delivered code=200")
        assert "stored" in line_with(emulator, "Song Played  user-1  seconds=214")


def test_the_service_is_seen(tmp_path: Path) -> None:
    """One command runs it beside an emulator, and the next asks it."""
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = shown("python", "uvicorn.run(app)")
    served = service.replace("uvicorn.run(app)", f"uvicorn.run(app, port={port})")
    (tmp_path / "service.py").write_text(served, "utf-8")
    asked = re.findall(r"http://\S+", shown("bash", "curl "))[0].replace(
        "8000", f"{port}"
    )
    dev, command = shown("bash", "dev --").split(" -- ")
    assert dev == "amplitude-async dev"

    ours = ("dev", "--port", "0", "--no-open", "--events", "--")
    with started(tmp_path, *ours, *command.split()) as process:
        line_with(process, "Uvicorn running")
        with urllib.request.urlopen(  # noqa: S310 - our own address
            urllib.request.Request(asked, method="POST"),  # noqa: S310 - the same
            timeout=PATIENCE,
        ) as answer:
            assert answer.status == 200
        assert "stored" in line_with(process, "Signed Up  user-1")


def words_of(mark: str) -> list[str]:
    """Return the words of a command of ours, without its name."""
    name, *words = shown("bash", f"amplitude-async {mark}").split()
    assert name == "amplitude-async"
    return words
