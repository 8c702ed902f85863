"""The health endpoint of a relay: probes, metrics, and clients that mean no good."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiohttp
import pytest

from amplitude_async import Amplitude
from amplitude_async.cli.relay.health import MOST_CONNECTIONS, HealthServer
from amplitude_async.emulator import Emulator
from amplitude_async.fleet.log import Backlog, Place
from amplitude_async.fleet.memory import MemoryLog
from amplitude_async.fleet.relay import Relay
from amplitude_async.integrations import prometheus_relay

__all__: list[str] = []

KEY = "0123456789abcdef0123456789abcdef"


class Endpoint:
    """A relay that is asked over HTTP."""

    def __init__(self, relay: Relay, log: MemoryLog, url: str) -> None:
        self.relay = relay
        self.log = log
        self.url = url
        self.stopping = asyncio.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, _, port = self.url.rpartition("/")[2].partition(":")
        return host, int(port)

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Return status and text of an answer."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path) as response,
        ):
            return response.status, await response.text()

    async def until_ready(self) -> None:
        """Wait for the relay's first word from the log."""
        async with asyncio.timeout(20):
            while True:
                if (await self.ask("/ready"))[0] == 200:
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def endpoint(emulator: Emulator, *, run: bool = True) -> AsyncIterator[Endpoint]:
    """Run a relay with a health endpoint."""
    log = MemoryLog("shop", partitions=2)
    client = Amplitude(KEY, server_url=emulator.httpapi_url)
    relay = Relay(log, [client])
    made = Endpoint(relay, log, "")
    server = HealthServer(relay, log, made.stopping)
    made.url = await server.start("127.0.0.1", 0)
    running = asyncio.create_task(relay.run()) if run else None
    try:
        yield made
    finally:
        log.go_on()
        relay.stop()
        if running is not None:
            await running
        else:
            await client.shutdown(0.1)
        await server.close()


async def test_probes_tell_a_relay_that_works(emulator: Emulator) -> None:
    """Alive and ready once the log has answered."""
    async with endpoint(emulator) as found:
        await found.until_ready()

        assert await found.ask("/live") == (200, "live\n")
        assert await found.ask("/ready") == (200, "ready\n")
        assert (await found.ask("/ready", "HEAD"))[0] == 200


async def test_a_relay_without_its_log_lives_and_is_not_ready(
    emulator: Emulator,
) -> None:
    """A restart brings no log back."""
    async with endpoint(emulator, run=False) as found:
        assert (await found.ask("/live"))[0] == 200
        assert await found.ask("/ready") == (503, "the log does not answer\n")


async def test_a_relay_that_stops_is_not_ready(emulator: Emulator) -> None:
    """Nobody counts on it any more."""
    async with endpoint(emulator) as found:
        await found.until_ready()
        found.stopping.set()

        status, text = await found.ask("/ready")

        assert status == 503
        assert "stopping" in text
        assert (await found.ask("/live"))[0] == 200


async def test_other_paths_and_verbs_are_refused(emulator: Emulator) -> None:
    """With a word on what there is."""
    async with endpoint(emulator, run=False) as found:
        status, text = await found.ask("/")

        assert status == 404
        assert "/ready" in text
        assert (await found.ask("/live", "POST"))[0] == 405


def sample(text: str, name: str) -> float:
    """Return the value of a series, which stands there once."""
    [line] = [one for one in text.splitlines() if one.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


async def test_metrics_tell_of_clients_places_and_backlog(emulator: Emulator) -> None:
    """Those of the clients have the names they always have."""
    pytest.importorskip("prometheus_client")
    async with endpoint(emulator) as found:
        await found.until_ready()
        async with asyncio.timeout(20):
            while True:
                if len(found.relay.places) == 2:
                    break
                await asyncio.sleep(0.02)

        status, text = await found.ask("/metrics")

        held = 'amplitude_relay_partitions_held{destination="amplitude"}'
        waiting = (
            'amplitude_relay_backlog_chunks{destination="amplitude",partition="1"}'
        )
        assert status == 200
        assert sample(text, held) == 2
        assert sample(text, "amplitude_relay_ready") == 1
        assert sample(text, waiting) == 0
        assert "amplitude_relay_backlog_oldest_age_seconds{" in text
        assert 'amplitude_client_event_accepted_total{client="amplitude"' in text
        assert KEY not in text


async def test_a_scrape_does_not_wait_for_a_log_that_hangs(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells what it knows."""
    pytest.importorskip("prometheus_client")
    monkeypatch.setattr(prometheus_relay, "SCRAPE_PATIENCE", 0.01)
    async with endpoint(emulator) as found:
        await found.until_ready()
        found.log.stall()

        status, text = await asyncio.wait_for(found.ask("/metrics"), 10)

        assert status == 200
        assert "amplitude_relay_ready" in text
        assert "amplitude_relay_backlog_chunks{" not in text


async def test_the_log_is_asked_once_in_a_while(emulator: Emulator) -> None:
    """However often somebody scrapes."""
    pytest.importorskip("prometheus_client")
    asked = 0

    async with endpoint(emulator) as found:
        await found.until_ready()
        real = found.log.backlog

        async def counting() -> list[Backlog]:
            nonlocal asked
            asked += 1
            return await real()

        found.log.backlog = counting  # type: ignore[method-assign]
        await asyncio.gather(*(found.ask("/metrics") for _ in range(10)))

    assert asked == 1


async def test_labels_are_bounded(emulator: Emulator) -> None:
    """What a log of very many places says is summed up."""
    pytest.importorskip("prometheus_client")
    many = [Backlog(Place("x", n), 1, 1, 1, 1.0, None) for n in range(5_000)]

    async def backlog() -> list[Backlog]:
        await asyncio.sleep(0)
        return many

    async with endpoint(emulator) as found:
        found.log.backlog = backlog  # type: ignore[method-assign]
        _, text = await found.ask("/metrics")

    name = "amplitude_relay_backlog_chunks"
    assert text.count(f"{name}{{") == prometheus_relay.MOST_PLACES + 1
    rest = sample(text, f'{name}{{destination="other",partition="other"}}')
    assert rest == 5_000 - prometheus_relay.MOST_PLACES


async def test_slow_clients_keep_no_probe_waiting(emulator: Emulator) -> None:
    """However many there are: a relay is not restarted because of them."""
    async with endpoint(emulator) as found, AsyncExitStack() as stack:
        await found.until_ready()
        for _ in range(2 * MOST_CONNECTIONS):
            _, writer = await asyncio.open_connection(*found.address)
            stack.callback(writer.close)
            writer.write(b"GET /live HT")

        assert (await found.ask("/live"))[0] == 200
        assert (await found.ask("/ready"))[0] == 200


async def test_clients_that_say_nothing_are_cut_off(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those beyond a number at once; others are answered after that as before."""
    monkeypatch.setattr("amplitude_async.cli.relay.health.LONGEST_CONNECTION", 0.5)
    async with endpoint(emulator) as found:
        await found.until_ready()
        idle = [
            await asyncio.open_connection(*found.address)
            for _ in range(MOST_CONNECTIONS + 5)
        ]
        for reader, writer in idle:
            writer.write(b"GET /live HT")
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()

        assert (await found.ask("/live"))[0] == 200
