"""How often processes sync to disk, as the kernel sees it."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fleet.real_servers import program

__all__ = ["Syncs", "counted_syncs"]

_CALL = re.compile(r"\b(?:fsync|fdatasync)\(")


class Syncs:
    """What a tracer has written down of one group of processes."""

    def __init__(self, traced: Path) -> None:
        self._traced = traced

    @property
    def count(self) -> int:
        """How often they synced; once the tracer is gone."""
        return len(_CALL.findall(self._traced.read_text(encoding="utf-8")))


@contextmanager
def counted_syncs(pids: Sequence[int], traced: Path) -> Iterator[Syncs]:
    """Write down what processes, and those that they start from now on, sync."""
    strace = program("strace", "apt-get install strace")
    options = [word for pid in pids for word in ("-p", str(pid))]
    traced.touch()
    tracer = subprocess.Popen(
        [strace, "-f", "-e", "trace=fsync,fdatasync", "-o", traced, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    try:
        for _ in pids:
            line = tracer.stderr.readline()
            # One that ended meanwhile syncs nothing any more.
            if b"attached" not in line and b"No such process" not in line:
                pytest.skip(f"NO STRACE HERE: syncs are NOT counted: {line.decode()}")
        yield Syncs(traced)
    finally:
        tracer.terminate()
        tracer.wait(10)
        tracer.stderr.close()
