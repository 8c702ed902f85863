"""A forked child has a spool of its own and leaves its parent's alone."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.storage.spool.lock import SpoolLock

__all__: list[str] = []

# Nothing listens there, so that everything stays where it is.
NOWHERE = "http://127.0.0.1:9/"

START = f"""
import asyncio, gc, json, os, signal, sys
from amplitude_async import Amplitude
from amplitude_async.storage import SQLiteStorage

client = Amplitude(
    "key", server_url={NOWHERE!r}, trust_env=False, storage=SQLiteStorage(sys.argv[1])
)

async def track(count, name):
    return [
        await client.track("e", user_id="user-1", event_properties={{"n": name}})
        for _ in range(count)
    ]
"""

CHILD_TRACKS = f"""{START}
async def child(inherited):
    result = await inherited
    await track(3, "child")
    print(json.dumps([result.reason, client.stats.recovered, client.stats.accepted]))
    stats = await client.shutdown(0.05)
    print(json.dumps([stats.stored, stats.balanced]), flush=True)

async def parent():
    delivery = (await track(5, "parent"))[-1]
    if (pid := os.fork()) == 0:
        # A loop of its own: the inherited one shares its selector with the parent.
        asyncio.run(child(delivery))
        os._exit(0)
    os.waitpid(pid, 0)
    await track(5, "parent")
    print(json.dumps([client.stats.accepted, client.stats.durable]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(parent())
"""

CHILD_ENDS = f"""{START}
async def main():
    await track(5, "parent")
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        await track(5, "parent")
        print(json.dumps(client.stats.accepted), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    client.__class__.__del__ = lambda self: None

asyncio.run(main())
# The child ends as any interpreter does: everything it has is torn down.
del client
gc.collect()
"""

PARENT_DIES = f"""{START}
async def main():
    await track(5, "parent")
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent is gone
        print("alive", flush=True)
        sys.stdin.read()
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def run(script: str, directory: Path) -> list[object]:
    """Run a script and return what it printed, line by line."""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def contents(directory: Path) -> list[tuple[str, int]]:
    """List what lies in the files of a directory, the smallest first."""
    found = []
    for path in directory.glob("*.spool"):
        with closing(SpoolFile.open(path)) as file:
            names = [
                json.loads(record.body)["event_properties"]["n"]
                for record in file.peek()
            ]
            assert len(set(names)) == 1
            found.append((names[0], len(names)))
    return sorted(found)


def test_parent_and_child_write_files_of_their_own(tmp_path: Path) -> None:
    """Inherited handles settle there; neither has what the other accepted."""
    lines = run(CHILD_TRACKS, tmp_path)

    assert lines == [["fork", 0, 3], [3, True], [10, True]]
    assert contents(tmp_path) == [("child", 3), ("parent", 10)]


def test_a_child_that_ends_does_not_touch_the_parents_spool(tmp_path: Path) -> None:
    """Its copy of the database is never closed: the parent is still writing."""
    assert run(CHILD_ENDS, tmp_path) == [10]
    assert contents(tmp_path) == [("parent", 10)]


def test_a_childs_life_does_not_keep_the_parents_lock(tmp_path: Path) -> None:
    """When the parent dies, its events are free, though its child lives on."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT_DIES, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "alive\n"
        process.wait(timeout=10)  # its descriptors are closed, one after the other
        (path,) = tmp_path.glob("*.spool")
        assert not SpoolLock.is_held(path)
        assert contents(tmp_path) == [("parent", 5)]
        process.stdin.close()


@pytest.mark.parametrize("turn", range(3))
def test_forking_while_the_spool_is_at_work(turn: int, tmp_path: Path) -> None:
    """A fork in the middle of a transaction leaves a child that can use SQLite."""
    script = f"""{START}
async def main():
    tasks = [asyncio.ensure_future(track(50, "parent")) for _ in range(8)]
    for _ in range({turn * 5 + 2}):
        await asyncio.sleep(0)
    if (pid := os.fork()) == 0:
        asyncio.run(child())
        os._exit(0)
    os.waitpid(pid, 0)
    await asyncio.gather(*tasks)
    print(json.dumps(client.stats.accepted), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def child():
    await track(3, "child")
    stats = await client.shutdown(0.05)
    print(json.dumps([stats.stored, stats.balanced]), flush=True)

asyncio.run(main())
"""
    assert run(script, tmp_path) == [[3, True], 400]
    assert contents(tmp_path) == [("child", 3), ("parent", 400)]
