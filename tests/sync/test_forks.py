"""A forked child begins with nothing, whatever its parent was in the middle of."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.emulator import Emulator

__all__: list[str] = []

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

BEGIN = """
import os, sys, threading, time, traceback, warnings
from amplitude_async.sync import SyncAmplitude
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads

def fork(child):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    return pid

def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""

HANDLES = (
    BEGIN
    + """
client = SyncAmplitude.from_env(flush_interval=3600.0)
first = client.track("parent", user_id="user-1")
assert first.result(10).ok
arrived, waiting = (client.track("parent", user_id="user-1") for _ in range(2))
closed = SyncAmplitude.from_env()
closed.track("closed", user_id="user-1")
closed.shutdown()
told = []
waiting.add_done_callback(lambda handle: told.append(handle.result().ok))

def child():
    assert first.result().ok
    for handle in (arrived, waiting):
        assert handle.done and handle.result(1).reason == "fork", handle.result(1)
        assert handle.result().event.event_type == "parent"
    called = []
    waiting.add_done_callback(called.append)
    assert called == [waiting]
    assert client.stats.accepted == client.stats.pending == 0
    assert closed.track("late", user_id="user-1").result(5).reason == "closed"
    handle = client.track("child", user_id="user-1")
    assert handle.result(10).ok and client.stats.accepted == 1
    assert handle.insert_id != waiting.insert_id
    wait(fork(grandchild))
    assert client.shutdown().balanced

def grandchild():
    assert client.stats.accepted == 0
    assert client.track("grandchild", user_id="user-1").result(10).ok
    client.shutdown()

wait(fork(child))
assert client.shutdown().delivered == 3 and told == [True], client.stats
"""
)


def test_a_child_and_its_child(run: Callable[..., Any], server: Emulator) -> None:
    """Inherited handles end as DROPPED fork; the child has accounts of its own."""
    ended = run(HANDLES)

    assert ended.returncode == 0, ended.stderr
    found = Counter(event["event_type"] for event in server.events)
    assert found == Counter(parent=3, closed=1, child=1, grandchild=1)
    assert server.stats.duplicates == 0


STORM = (
    BEGIN
    + """
client = SyncAmplitude.from_env(flush_interval=0.02, **eval(sys.argv[2]))
stop, counts = threading.Event(), []

def track(number):
    count = 0
    while not stop.is_set():
        client.track("parent", user_id=f"user-{number}", event_properties={"n": count})
        count += 1
        if count % 5 == 0:
            time.sleep(0.005)  # so that the emulator keeps all of them
        if count % 500 == 0:
            client.flush(0.05)
    counts.append(count)

threads = [threading.Thread(target=track, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
client.track("parent", user_id="user-p").result(10)

def child():
    assert client.track("child", user_id="user-c").result(10).ok
    stats = client.shutdown()
    assert stats.balanced and (stats.accepted, stats.delivered) == (1, 1), stats

for _ in range(int(sys.argv[1])):
    wait(fork(child))
stop.set()
for thread in threads:
    thread.join()
stats = client.shutdown(30)
print(stats.balanced, stats.accepted == stats.delivered == sum(counts) + 1)
"""
)


@pytest.mark.parametrize(
    "forks", [10, pytest.param(100, marks=pytest.mark.long)], ids=["few", "many"]
)
@pytest.mark.parametrize(
    "options", ["{}", "{'max_storage_capacity': 50, 'overflow_timeout': 30}"],
    ids=["room", "full"],
)  # fmt: skip
def test_forks_in_the_middle_of_everything(
    options: str, forks: int, run: Callable[..., Any], server: Emulator
) -> None:
    """Threads track, flush and wait for room: no child hangs, no event is doubled."""
    ended = run(STORM, str(forks), options)

    assert ended.stdout == "True True\n", ended.stderr
    assert sum(e["event_type"] == "child" for e in server.events) == forks
    assert server.stats.duplicates == 0


BUSY = (
    BEGIN
    + """
from amplitude_async.storage import SQLiteStorage
client = SyncAmplitude.from_env(storage=SQLiteStorage(sys.argv[1]))
client.track("parent", user_id="user-1").result(10)

def block(event):
    time.sleep(2)
    return event

client.add(block)
user = {"user_id": "user-2"}
threading.Thread(target=client.track, args=["slow"], kwargs=user).start()
time.sleep(0.05)

def child():
    client.remove("block")
    assert client.track("child", user_id="user-1").result(10).ok
    assert client.shutdown().balanced

pid = fork(child)
client.remove("block")
wait(pid)
print(client.shutdown().balanced)
"""
)


def test_a_fork_waits_not_long_for_a_loop_that_is_held_up(
    run: Callable[..., Any], server: Emulator, tmp_path: Path
) -> None:
    """A plugin that blocks, and a spool: the child goes on with its own."""
    ended = run(BUSY, str(tmp_path / "spool"))

    assert ended.stdout == "True\n", ended.stderr
    found = Counter(event["event_type"] for event in server.events)
    assert found == Counter(parent=1, slow=1, child=1)
