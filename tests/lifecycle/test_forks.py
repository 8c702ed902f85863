"""A child that goes on with its parent's event loop sends its own events only."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from amplitude_async.emulator import Emulator

__all__: list[str] = []

TIMEOUT = 20.0

# A child should have a loop of its own; some go on with the one they find.
SCRIPT = """
import asyncio, os, sys
from amplitude_async import Amplitude, DestinationPlugin
from amplitude_async.storage import SQLiteStorage

url, where, kind, does, directory = sys.argv[1:]
process, heard = os.getpid(), []

def hear(event):
    # What a parent began before the fork is no affair of the child's.
    if os.getpid() != process:
        heard.append(event.event_type)

class Plain(DestinationPlugin):
    name = "plain"
    async def execute(self, event):
        hear(event)
        await asyncio.sleep(0.01)

client = Amplitude(
    "key",
    server_url=url,
    trust_env=False,
    flush_interval=0.3,
    plugins=[Plain()],
    callback=lambda result: hear(result.event),
    **({"storage": SQLiteStorage(directory)} if kind == "spool" else {}),
)

async def begin():
    for number in range(10):
        await client.track("parent", user_id=f"user-{number}")

async def child():
    assert (client.stats.accepted, client.stats.destinations["plain"].pending) == (0, 0)
    if does == "sleeps":
        # Long enough for the parent's batch to be due.
        await asyncio.sleep(1.0)
    else:
        await client.track("child", user_id="user-c")
        await client.flush()
        stats = await client.shutdown()
        print("child", stats.accepted, stats.delivered, stats.balanced)
    print("heard", heard.count("child"), heard.count("parent"), flush=True)

async def parent(pid):
    loop = asyncio.get_running_loop()
    _, status = await loop.run_in_executor(None, os.waitpid, pid, 0)
    assert status == 0, status
    stats = await client.shutdown()
    print("parent", stats.accepted, stats.delivered, stats.balanced)

async def fork_inside():
    loop = asyncio.get_running_loop()
    await begin()
    pid = os.fork()
    if pid:
        return await parent(pid)
    asyncio._set_running_loop(loop)
    await asyncio.wait_for(child(), 10)
    os._exit(0)

loop = asyncio.new_event_loop()
if where == "inside":
    loop.run_until_complete(fork_inside())
else:
    loop.run_until_complete(begin())
    pid = os.fork()
    if pid == 0:
        loop.run_until_complete(asyncio.wait_for(child(), 10))
        os._exit(0)
    loop.run_until_complete(parent(pid))
loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("does", ["tracks", "sleeps"])
@pytest.mark.parametrize("kind", ["memory", "spool"])
@pytest.mark.parametrize("where", ["inside", "between"])
async def test_a_child_on_the_same_loop(
    where: str, kind: str, does: str, emulator: Emulator, tmp_path: Path
) -> None:
    """It has copies of its parent's tasks; they send, execute and call nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", textwrap.dedent(SCRIPT)),
        *(emulator.httpapi_url, where, kind, does, str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = await asyncio.wait_for(process.communicate(), TIMEOUT)

    tracks = does == "tracks"
    told = ["child 1 1 True", "heard 2 0"] if tracks else ["heard 0 0"]
    lines = stdout.decode().splitlines()
    assert lines == [*told, "parent 10 10 True"], stderr.decode()
    sent = Counter(event["event_type"] for event in emulator.events)
    assert sent == Counter(parent=10, child=1 if tracks else 0)
    assert emulator.stats.duplicates == 0
