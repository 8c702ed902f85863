"""What fixtures of real servers begin with: a program, ports, and a project.

Their servers are not those of the demo, which are processes of one loop: these live for
a session, in which each test has a loop of its own. Nor is the demo's search for
programs theirs: what the package does on a test's loop must not block, and it does.
"""

import os
import random
import shutil
import socket
import sys
from pathlib import Path

import pytest

__all__ = ["REQUIRED", "free_ports", "program", "project_name"]

REQUIRED = os.environ.get("AMPLITUDE_ASYNC_FLEET") == "required"
"""True where tests of a fleet fail for a lack of servers, and are not skipped."""


def program(name: str, remedy: str) -> str:
    """Find a program; where there is none, skip loudly, or fail if it must be there."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    # Before the path: what Debian has there asks another program which one to run.
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None and not debian:
        msg = f"NO {name.upper()}: this part of a fleet is NOT tested: {remedy}"
        if REQUIRED:
            pytest.fail(msg)
        pytest.skip(msg)
    return str(debian[-1] if debian else found)


def free_ports(count: int, among: range) -> list[int]:
    """Return ports that nobody listens on now.

    Args:
        count: how many.
        among: a range of one fixture's own: the port of a server that a test killed is
            free until it is started again, and no other may be given it.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(among, len(among)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"fewer than {count} ports are free in {among}")


@pytest.fixture
def project_name() -> str:
    """Return a project that no other test has."""
    return f"t{random.SystemRandom().getrandbits(60):x}"
