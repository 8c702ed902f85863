"""The machine stops, or its disk is full: what was promised holds, the rest is told."""

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import amplitude_async
from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.storage.spool.file import SpoolFile
from amplitude_async.testing.storage_contract import make_record

__all__: list[str] = []

DOWN = Fault(503, count=None)
EVENTS = 200

# A full disk, as far as this process can tell: no file of it may grow beyond 300 kB.
FULL_DISK = """
import asyncio, json, logging, resource, signal, sys
from amplitude_async import Amplitude
from amplitude_async.storage import SQLiteStorage

directory, url, key = sys.argv[1:]
logging.basicConfig(format="%(levelname)s %(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

async def main():
    client = Amplitude(
        key,
        server_url=url,
        trust_env=False,
        storage=SQLiteStorage(directory),
        flush_interval=3600.0,
        max_storage_capacity=100_000,
    )
    await client.start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    durable = []
    for number in range(3_000):
        await client.track("e", user_id="user-1", event_properties={"n": number})
        if client.stats.durable:
            durable.append(number)
    print(json.dumps({"durable": durable, "still": client.stats.durable}))
    sys.stdout.flush()
    signal.raise_signal(signal.SIGKILL)

asyncio.run(main())
"""


def test_a_log_that_is_cut_anywhere_gives_back_what_came_first(tmp_path: Path) -> None:
    """Whatever a loss of power leaves of the log opens, as a prefix of the records."""
    path = tmp_path / "one.spool"
    log = Path(f"{path}-wal")
    cuts = random.Random(1)
    with closing(SpoolFile.create(path, "here", full_sync=False)) as file:
        base = log.stat().st_size
        ends = [base]
        for number in range(1, EVENTS + 1):
            file.insert([make_record(number, size=cuts.randrange(2_000))])
            ends.append(log.stat().st_size)
        for turn in range(40):
            copy = tmp_path / f"{turn}.spool"
            shutil.copy(path, copy)
            shutil.copy(log, f"{copy}-wal")
            cut = cuts.randrange(base, ends[-1])
            os.truncate(f"{copy}-wal", cut)
            with closing(SpoolFile.open(copy)) as left:
                found = [record.id for record in left.fetch(0, EVENTS, 10**9)]
            # All transactions that are whole, and nothing of the one that is not.
            whole = sum(end <= cut for end in ends) - 1
            assert found == list(range(1, whole + 1))


async def test_a_full_disk_is_told_and_survived(
    tmp_path: Path, emulator: Emulator, connect: Callable[..., Amplitude]
) -> None:
    """What was promised before is delivered after a crash; the promise is withdrawn."""
    emulator.faults.add(DOWN)
    ended = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable,
            "-c",
            FULL_DISK,
            str(tmp_path / "spool"),
            emulator.httpapi_url,
            "0123456789abcdef-secret",
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )
    assert ended.stdout, ended.stderr
    told = json.loads(ended.stdout)
    assert not told["still"]
    assert 10 < len(told["durable"]) < 3_000
    errors = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, ended.stderr
    assert "do not survive the process" in errors[0]
    assert "Traceback" not in ended.stderr

    emulator.faults.clear()
    client = connect()
    await client.start()
    stats = await client.flush(None)
    arrived = {event["event_properties"]["n"] for event in emulator.events}
    assert set(told["durable"]) <= arrived
    assert stats.recovered == len(arrived)


@pytest.mark.parametrize("cut", [0, 100, 4096, 20_000])
def test_a_database_that_is_cut_is_never_taken_for_a_whole_one(
    cut: int, tmp_path: Path
) -> None:
    """A file system that loses the end of a file does not lead to made-up events."""
    path = tmp_path / "one.spool"
    with closing(SpoolFile.create(path, "here", full_sync=False)) as file:
        file.insert([make_record(number) for number in range(1, 1_001)])
    os.truncate(path, cut)
    try:
        with closing(SpoolFile.open(path, migrate=False)) as file:
            if file.blank:
                return
            found = file.fetch(0, 2_000, 10**9)
    except amplitude_async.AmplitudeError:
        return
    assert all(record.body == make_record(record.id).body for record in found)
