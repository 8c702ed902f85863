"""What Prometheus scrapes: one moment of each client, or the files of all processes."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.integrations.prometheus import AmplitudeCollector
from amplitude_async.mparticle import MParticle

__all__: list[str] = []

Connect = Callable[..., Amplitude]
StartExample = Callable[..., AbstractAsyncContextManager[Any]]
USER = "user-1234567890"
SERIES = {
    "amplitude_client_event_accepted_total",
    "amplitude_client_event_processed_total",
    "amplitude_client_event_inflight",
    "amplitude_client_event_oldest_age_seconds",
    "amplitude_client_queue_size",
    "amplitude_client_queue_capacity",
    "amplitude_client_queue_bytes",
    "amplitude_client_spool_events",
    "amplitude_client_spool_bytes",
    "amplitude_client_spool_oldest_age_seconds",
    "amplitude_client_health",
}
HISTOGRAMS = {
    "amplitude_client_request_duration_seconds",
    "amplitude_client_event_age_seconds",
}


class Scrape:
    """The text that a scrape gave, read as Prometheus reads it."""

    def __init__(self, text: bytes) -> None:
        self.samples = [
            sample
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """Add up the samples of a name that have these labels."""
        name = f"amplitude_client_{name}"
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def names(self) -> set[str]:
        """All names that have a sample."""
        return {s.name for s in self.samples if not s.name.endswith("_created")}

    @property
    def lawful(self) -> bool:
        """True where what came in is what is decided and what waits."""
        decided = self.value("event_processed_total")
        waiting = self.value("event_inflight")
        return self.value("event_accepted_total") == decided + waiting


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry that nobody else has."""
    return CollectorRegistry()


@pytest.fixture
def scrape(registry: CollectorRegistry) -> Callable[[], Scrape]:
    """Return what asks it."""
    return lambda: Scrape(generate_latest(registry))


async def test_every_series_is_there_before_the_first_event(
    connect: Connect, registry: CollectorRegistry, scrape: Callable[[], Scrape]
) -> None:
    """So that an alert sees the first event that is lost as a growth."""
    client = connect(max_storage_capacity=77)
    AmplitudeCollector(client, registry=registry)
    seen = scrape()

    assert seen.names == SERIES
    assert seen.value("queue_capacity") == 77
    assert seen.value("health", state="healthy") == seen.value("health") == 1
    reasons = {s.labels["error_type"] for s in seen.samples if "error_type" in s.labels}
    assert {"overflow", "expired", "rejected", ""} <= reasons


async def test_what_happened_is_seen(
    connect: Connect,
    registry: CollectorRegistry,
    scrape: Callable[[], Scrape],
    emulator: Emulator,
) -> None:
    """Counters, gauges and histograms of one client."""
    emulator.faults.add(Fault(hang_up="before"), Fault.server_error())
    client = connect(retry_base_interval=0.01)
    AmplitudeCollector(client, registry=registry)
    async with client:
        for _ in range(5):
            await client.track("Seen", user_id=USER)
        await client.track("Seen", user_id="x")
        waiting = scrape()
        await client.flush()
    seen = scrape()

    assert waiting.lawful
    assert waiting.value("event_inflight") == waiting.value("queue_size") == 5
    assert waiting.value("event_oldest_age_seconds") > 0
    assert seen.lawful
    assert seen.value("event_processed_total", outcome="delivered") == 5
    assert seen.value("event_processed_total", error_type="rejected") == 1
    assert seen.value("event_oldest_age_seconds") == 0
    assert seen.names == SERIES | {
        f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")
    }
    assert seen.value("event_age_seconds_count", destination="amplitude") == 5
    for error in ("no_answer", "500", ""):
        count = "request_duration_seconds_count"
        assert seen.value(count, error_type=error) == 1
    assert seen.value("request_duration_seconds_bucket", le="+Inf") == 3


async def test_no_label_names_a_person_a_key_or_an_event(
    connect: Connect, registry: CollectorRegistry, emulator: Emulator
) -> None:
    """Whatever went wrong."""
    emulator.faults.add(Fault(401))
    client = connect()
    AmplitudeCollector(client, registry=registry)
    async with client:
        await client.track("Secret Plan", user_id=USER, device_id="device-77")
        await client.flush()
        text = generate_latest(registry).decode()
    assert 'amplitude_client_health{client="amplitude",' in text
    for word in (USER, "device-77", "Secret Plan", "0123456789abcdef"):
        assert word not in text


async def test_the_law_holds_at_any_scrape(
    connect: Connect, scrape: Callable[[], Scrape], registry: CollectorRegistry
) -> None:
    """A server of metrics has a thread of its own, and asks while the loop is busy."""
    client = connect(max_storage_capacity=50_000, flush_queue_size=50)
    AmplitudeCollector(client, registry=registry)
    over = threading.Event()
    seen: list[Scrape] = []

    def keep_scraping() -> None:
        while not over.is_set():
            seen.append(scrape())

    async with client:
        scraping = asyncio.create_task(asyncio.to_thread(keep_scraping))
        for number in range(2_000):
            await client.track("Seen", user_id=f"user-{number % 50:06}")
        await client.flush()
        over.set()
        await scraping
    assert len(seen) > 2
    assert [one for one in seen if not one.lawful] == []
    assert scrape().value("event_processed_total", outcome="delivered") == 2_000


async def test_clients_are_told_apart(
    connect: Connect, registry: CollectorRegistry, scrape: Callable[[], Scrape]
) -> None:
    """By vendor and number, or by the names they are given."""
    batches = MParticle("key", "secret", base_url="http://127.0.0.1:1")
    clients = connect(), connect(), batches
    collector = AmplitudeCollector(*clients, registry=registry)
    names = {s.labels["client"] for s in scrape().samples}
    assert names == {"amplitude", "amplitude-2", "mparticle"}
    assert repr(collector) == (
        "<AmplitudeCollector 'amplitude', 'amplitude-2', 'mparticle'>"
    )
    collector.close()
    collector.close()
    assert scrape().samples == []
    AmplitudeCollector(*clients[:2], names=["orders", "mails"], registry=registry)
    assert {s.labels["client"] for s in scrape().samples} == {"orders", "mails"}


@pytest.mark.parametrize("names", [[], ["a"], ["a", "a"]])
async def test_names_must_fit(connect: Connect, names: list[str]) -> None:
    """Two series of one name would be a scrape that fails."""
    with pytest.raises(ValueError, match="names="):
        AmplitudeCollector(connect(), connect(), names=names, registry=None)


async def test_a_second_collector_is_refused_by_the_registry(
    connect: Connect, registry: CollectorRegistry
) -> None:
    """It would give every series twice."""
    client = connect()
    AmplitudeCollector(client, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        AmplitudeCollector(client, registry=registry)


async def test_a_collector_that_is_refused_observes_nobody(
    connect: Connect, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could end that: there is no collector to close."""
    client, observed = connect(), list[Any]()
    AmplitudeCollector(client, registry=registry)
    monkeypatch.setattr(client, "observe", observed.append)
    with pytest.raises(ValueError, match="Duplicated"):
        AmplitudeCollector(client, registry=registry)
    assert observed == []


async def test_a_single_process_needs_no_updates(
    connect: Connect, registry: CollectorRegistry, scrape: Callable[[], Scrape]
) -> None:
    """The same code runs where there is one process and where there are several."""
    client = connect()
    collector = AmplitudeCollector(client, registry=registry)
    async with collector.updating(), client:
        await client.track("Seen", user_id=USER)
        collector.update()
    assert scrape().value("event_processed_total") == 1


async def test_the_example_serves_metrics_and_a_probe(
    start_example: StartExample, emulator: Emulator
) -> None:
    """As a process of its own, until it is terminated."""
    async with (
        start_example("metrics_service.py") as service,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"{service.url}/orders/{USER}") as answer:
            assert answer.status == 200
        async with session.get(f"{service.url}/metrics/") as answer:
            seen = Scrape(await answer.read())
        async with session.get(f"{service.url}/ready") as answer:
            assert answer.status == 200
            assert (await answer.json())["analytics"] == "healthy"
        code, _ = await service.stop()
    assert code in {0, -signal.SIGTERM}
    assert seen.value("event_accepted_total") == 1
    assert [event["user_id"] for event in emulator.events] == [USER]


async def test_the_probe_of_the_example_sees_a_refused_key(
    start_example: StartExample, emulator: Emulator
) -> None:
    """It is not ready, and says why."""
    emulator.faults.add(Fault(401, count=None))
    async with (
        start_example("metrics_service.py") as service,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"{service.url}/orders/{USER}") as answer:
            assert answer.status == 200
        async with asyncio.timeout(10):
            while True:
                async with session.get(f"{service.url}/ready") as answer:
                    told = await answer.json()
                if answer.status == 503:
                    break
                await asyncio.sleep(0.02)
    assert told == {"analytics": "refused", "waiting": 0}


# --- Several processes ---

WORKER = """
import asyncio, os, sys
from amplitude_async import Amplitude
from amplitude_async.integrations.prometheus import AmplitudeCollector

async def main(url, events, capacity):
    client = Amplitude(
        "key", server_url=url, trust_env=False, max_storage_capacity=int(capacity)
    )
    collector = AmplitudeCollector(client)
    async with collector.updating(every=0.01), client:
        for number in range(int(events)):
            await client.track("Seen", user_id=f"user-{number:06}")
        await client.track("Seen", user_id="x")
        await client.flush()
        if len(sys.argv) > 4:
            await client.track("Last", user_id="user-000001")  # sent by the shutdown
            collector.update()
            print("waiting", flush=True)
            await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(*sys.argv[1:4]))
"""


def worker(
    multiprocess: Path, *arguments: Any, wait: bool = False
) -> "subprocess.Popen[str]":
    """Start a process that writes its metrics to files."""
    arguments = (*arguments, "wait") if wait else arguments
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *map(str, arguments)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(multiprocess)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def working(tmp_path: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """Yield a list of processes, none of which outlives the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def read_files(path: Path) -> Scrape:
    """Scrape as the page of one of several processes does."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(path))  # type: ignore[no-untyped-call]
    return Scrape(generate_latest(registry))


def wait_for(processes: Iterable["subprocess.Popen[str]"]) -> None:
    """Wait for the end of processes that end by themselves."""
    for process in processes:
        process.communicate("\n", timeout=30)
        assert process.returncode == 0


async def test_two_processes_are_one_account(
    tmp_path: Path, emulator: Emulator, working: list["subprocess.Popen[str]"]
) -> None:
    """Counters add up, amounts of the living as well, and nothing is counted twice."""
    url = emulator.httpapi_url
    working += [
        worker(tmp_path, url, 5, 10, wait=True),
        worker(tmp_path, url, 7, 20, wait=True),
    ]
    for process in working:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line == "waiting\n"
    living = read_files(tmp_path)
    await asyncio.to_thread(wait_for, working)
    ended = read_files(tmp_path)

    assert living.names >= SERIES
    assert living.value("queue_capacity") == 30
    assert living.value("health", state="healthy") == 2
    assert living.value("event_accepted_total") == 16
    assert living.value("event_inflight") == 2
    assert living.lawful
    assert ended.value("event_processed_total", outcome="delivered") == 14
    assert ended.value("event_processed_total", outcome="rejected") == 2
    assert ended.value("event_accepted_total") == 16
    assert ended.value("event_inflight") == 0
    assert ended.value("event_age_seconds_count") == 14
    assert ended.value("request_duration_seconds_count", error_type="") >= 4


async def test_a_directory_that_is_missing_is_told_at_the_start(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything has begun, as with any setting that is wrong."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    collector = AmplitudeCollector(connect(), registry=None)
    fault = OSError("No such file or directory")
    monkeypatch.setattr(collector, "update", raising(fault))
    with pytest.raises(OSError, match="No such file"):
        async with collector.updating():
            pytest.fail("it began")  # pragma: no cover


async def test_files_that_fail_later_harm_no_service(
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody has emptied the directory: the log says so, once a minute."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    client = connect()
    collector = AmplitudeCollector(client, registry=None)
    monkeypatch.setattr(collector, "update", raising())
    async with collector.updating(every=0.001), client:
        monkeypatch.setattr(collector, "update", raising(OSError("no space left")))
        result = await (await client.track("Seen", user_id=USER))
        await asyncio.sleep(0.01)
    assert result.ok
    [told] = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "metrics were not written: OSError: no space left" in told.getMessage()


def raising(fault: Exception | None = None) -> Callable[[], None]:
    """Return what raises, or does nothing."""

    def update() -> None:
        if fault is not None:
            raise fault

    return update


FORKS = """
import asyncio, os, sys
from amplitude_async import Amplitude
from amplitude_async.integrations.prometheus import AmplitudeCollector

client = Amplitude("key", server_url=sys.argv[1], trust_env=False)
collector = AmplitudeCollector(client)

async def main(events):
    async with collector.updating(), client:
        for number in range(events):
            await client.track("Seen", user_id="user-000001")

collector.update()
child = os.fork()
asyncio.run(main(3 if child else 4))
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


async def test_a_forked_process_counts_for_itself(
    tmp_path: Path, emulator: Emulator
) -> None:
    """As under a server that loads the application before it forks."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FORKS,
        emulator.httpapi_url,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
    )
    assert await asyncio.wait_for(process.wait(), 30) == 0
    seen = read_files(tmp_path)
    assert seen.value("event_accepted_total") == 7
    assert seen.value("event_processed_total", outcome="delivered") == 7
