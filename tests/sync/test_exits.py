"""The end of a process drains its clients, within bounds, however it ends."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

BEGIN = """
import atexit, logging, os, signal, sys, threading, time
from amplitude_async.sync import SyncAmplitude
logging.basicConfig()
# A name, so that somebody has to look it up: at the exit no thread can be started.
url = os.environ["URL"].replace("127.0.0.1", "localhost")
client = SyncAmplitude("key", server_url=url, trust_env=False, shutdown_timeout=1.0)
for number in range(50):
    client.track("e", user_id=f"user-{number}")
"""


LATE_THREAD = """
options = {"user_id": "user-1"}
threading.Timer(0.1, client.track, ["late"], options).start()
"""
TERMINATED = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
"""


@pytest.mark.parametrize(
    ("end", "code", "extra"),
    [
        ("", 0, 0),
        ("sys.exit(3)", 3, 0),
        ("raise ValueError", 1, 0),
        ("atexit.register(lambda: client.track('late', user_id='user-1'))", 0, 1),
        ("atexit.register(lambda: client.shutdown())", 0, 0),
        (LATE_THREAD, 0, 1),
        ("del client", 0, 0),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(10)", -2, 0),
        (TERMINATED, 4, 0),
    ],
    ids=["end", "exit", "error", "atexit", "own", "thread", "del", "ctrl-c", "term"],
)
def test_an_exit_drains(
    end: str, code: int, extra: int, run: Callable[..., Any], server: Emulator
) -> None:
    """Nobody has called shutdown: every event arrives all the same."""
    ended = run(f"{BEGIN}\n{end}")

    assert ended.returncode == code, ended.stderr
    assert len(server.events) == 50 + extra, ended.stderr
    assert "Task was destroyed" not in ended.stderr


@pytest.mark.parametrize("late", ["before", "first"])
def test_a_function_at_the_exit_tracks(
    late: str, run: Callable[..., Any], server: Emulator
) -> None:
    """Registered before the first verb, or with the first verb of all in it."""
    if late == "first" and sys.version_info[:2] == (3, 12):
        pytest.skip("Python 3.12 starts no thread at its end")
    ended = run(
        f"""
        import atexit
        from amplitude_async.sync import SyncAmplitude
        client = SyncAmplitude.from_env()
        atexit.register(lambda: client.track("late", user_id="user-1"))
        if {late == "before"}:
            client.track("early", user_id="user-1").result(10)
        """
    )

    assert ended.stderr == ""
    assert server.events[-1]["event_type"] == "late"


def test_daemon_threads_that_track_and_wait_end_with_the_interpreter(
    run: Callable[..., Any],
) -> None:
    """They are stopped wherever they are: no traceback, and no thread holds it up."""
    ended = run(
        """
        import threading, time
        from amplitude_async.sync import SyncAmplitude
        options = {"max_storage_capacity": 50, "shutdown_timeout": 0.5}
        client = SyncAmplitude.from_env(**options)

        def work():
            while True:
                client.track("e", user_id="user-1")

        for _ in range(8):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
        """
    )

    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


def test_an_exit_in_an_outage_is_bounded(
    run: Callable[..., Any], server: Emulator
) -> None:
    """What was lost is in the log, with its number."""
    server.faults.add(Fault(500, delay=float("inf"), count=None))
    began = time.monotonic()

    ended = run(BEGIN)

    assert time.monotonic() - began < 15
    assert ended.returncode == 0
    assert "[dropped shutdown x50]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_exit_is_bounded_though_a_plugin_holds_the_loop_up(
    run: Callable[..., Any],
) -> None:
    """A loop that never answers is left behind; the log says how much it had."""
    ended = run(
        f"""
{BEGIN}
client.add(lambda event: time.sleep(60), replace=False)
client.track("stuck", user_id="user-1")
time.sleep(0.05)
client.track("behind", user_id="user-1")
"""
    )

    assert ended.returncode == 0
    assert "the loop did not answer at the exit" in ended.stderr


def test_a_default_sigterm_kills_at_once(
    run: Callable[..., Any], server: Emulator
) -> None:
    """Python runs nothing then: what the docs say about it is true."""
    ended = run(f"{BEGIN}\nos.kill(os.getpid(), signal.SIGTERM); time.sleep(10)")

    assert ended.returncode == -15
    assert len(server.events) < 50


MULTI = """
import multiprocessing, os, sys
from amplitude_async.sync import SyncAmplitude

client = SyncAmplitude.from_env(flush_interval=3600.0)

def work(number):
    client.track("child", user_id=f"user-{number}")

if __name__ == "__main__":
    client.track("parent", user_id="user-p").result(10)
    client.track("parent", user_id="user-p")
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=work, args=(n,)) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    with context.Pool(2) as pool:
        pool.map(work, range(3, 10))
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        *(pytest.param(m, marks=pytest.mark.long) for m in ("spawn", "forkserver")),
    ],
)
def test_multiprocessing(
    method: str, run: Callable[..., Any], server: Emulator
) -> None:
    """Each child has its own loop and drains at its end; nothing is doubled."""
    if sys.platform == "win32" and method != "spawn":
        pytest.skip("has no fork")
    ended = run(MULTI, method)

    assert ended.returncode == 0, ended.stderr
    found = Counter(event["event_type"] for event in server.events)
    assert found == Counter(parent=2, child=10), ended.stderr
    assert server.stats.duplicates == 0
