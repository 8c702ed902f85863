"""Suites of others, each run by a pytest of its own that has the plugin installed."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

__all__ = ["Run", "suite"]

# Any name that is asked for is written down, in each process, and is found nowhere.
NO_NAMES = """
import os, socket
def getaddrinfo(host, *args, real=socket.getaddrinfo, **options):
    if host in (None, "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"):
        return real(host, *args, **options)
    with open(os.environ["NAMES_ASKED_FOR"], "a") as file:
        file.write(f"{host}\\n")
    raise socket.gaierror(f"{host} is asked for")
socket.getaddrinfo = getaddrinfo
"""
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) ([^\s]+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What a pytest has done."""

    code: int
    text: str
    names: list[str]
    """Hosts whose addresses were asked for."""

    @property
    def outcomes(self) -> dict[str, str]:
        """What became of each test, by its name alone; an error wins."""
        found: dict[str, str] = {}
        for outcome, name in OUTCOME.findall(self.text):
            short = name.partition("::")[2].rpartition("::")[2] or name
            if found.get(short) != "ERROR":
                found[short] = outcome
        return found


Suite = Callable[..., Run]


@pytest.fixture(scope="session")
def suite(
    tmp_path_factory: pytest.TempPathFactory, importable_package: None
) -> Callable[..., Run]:
    """Return a function that writes the files of a suite and runs pytest on it."""

    def run(*arguments: str, files: dict[str, str], **environment: str) -> Run:
        folder = tmp_path_factory.mktemp("suite")
        asked = folder / "names-asked-for"
        for name, text in {"pytest.ini": "[pytest]\n", **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        outside = folder / "outside"
        outside.mkdir()
        (outside / "sitecustomize.py").write_text(NO_NAMES, encoding="utf-8")
        path = os.pathsep.join((str(outside), os.environ["PYTHONPATH"]))
        mine = ("AMPLITUDE", "MPARTICLE", "PYTEST")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
        more = {"PYTHONPATH": path, "NAMES_ASKED_FOR": str(asked), **environment}
        command = (sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider")
        done = subprocess.run(  # noqa: PLW1510 - its code is what is asked for
            (*command, *arguments),
            cwd=folder,
            env={**kept, **more},
            capture_output=True,
            text=True,
            timeout=100,
        )
        names = asked.read_text().split() if asked.exists() else []
        return Run(done.returncode, done.stdout + done.stderr, names)

    return run
