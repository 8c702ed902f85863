"""Metrics of a relay for Prometheus: its clients' account, its places, the backlog.

Needs ``prometheus-client`` (the extra of the name ``prometheus``).
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from amplitude_async.exceptions import LogError
from amplitude_async.fleet.log import Backlog, Log
from amplitude_async.fleet.relay import Relay
from amplitude_async.integrations.prometheus import AmplitudeCollector

__all__ = ["RelayMetrics"]

READ_INTERVAL: Final = 10.0
READ_PATIENCE: Final = 10.0
SCRAPE_PATIENCE: Final = 1.0
# Figures that are older tell of another time, and are left out.
FORGOTTEN_AFTER: Final = 60.0
# A log has at most a thousand partitions of each destination: the rest is summed up.
MOST_PLACES: Final = 1_024
REST: Final = "other"


class RelayMetrics(Collector):
    """Collects for one relay; the log is asked beside the scrape.

    Args:
        relay: whose clients and places are told of.
        log: is asked what waits, at most every ten seconds.
    """

    def __init__(self, relay: Relay, log: Log) -> None:
        self._relay = relay
        self._log = log
        self._registry = CollectorRegistry()
        self._clients = AmplitudeCollector(*relay.clients, registry=self._registry)
        self._registry.register(self)
        self._backlog: Sequence[Backlog] = ()
        self._read_at = -FORGOTTEN_AFTER
        self._asked_at = -READ_INTERVAL
        self._reading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RelayMetrics of {self._relay.name}>"

    async def scrape(self) -> tuple[bytes, str]:
        """Give the text that Prometheus reads, and its type."""
        now = time.monotonic()
        idle = self._reading is None or self._reading.done()
        if idle and now - self._asked_at >= READ_INTERVAL:
            self._asked_at = now
            self._reading = asyncio.create_task(self._read())
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=SCRAPE_PATIENCE)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    async def close(self) -> None:
        """Observe the clients no more, and ask the log nothing more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading}, timeout=SCRAPE_PATIENCE)
        self._clients.close()

    async def _read(self) -> None:
        # That the log does not answer is said by the relay, and by `ready` here.
        with contextlib.suppress(LogError, OSError):
            async with asyncio.timeout(READ_PATIENCE):
                self._backlog = await self._log.backlog()
            self._read_at = time.monotonic()

    # Asked by the registry ---------------------------------------------------

    def describe(self) -> Iterator[Metric]:
        """Name all families, without a look at the relay."""
        yield from (self._held(), self._ready(), *_waiting(()))

    def collect(self) -> Iterator[Metric]:
        """Tell of the relay, and of the log as it was when it was last asked."""
        fresh = time.monotonic() - self._read_at < FORGOTTEN_AFTER
        yield self._held()
        yield self._ready()
        yield from _waiting(self._backlog if fresh else ())

    def _held(self) -> Metric:
        family = GaugeMetricFamily(
            "amplitude_relay_partitions_held",
            "Partitions that this relay has.",
            labels=["destination"],
        )
        places = self._relay.places
        for client in self._relay.clients:
            name = client.destination
            held = sum(place.destination == name for place in places)
            family.add_metric([name], held)
        return family

    def _ready(self) -> Metric:
        return GaugeMetricFamily(
            "amplitude_relay_ready",
            "1 while the log answers this relay.",
            value=float(self._relay.ready),
        )


def _waiting(backlog: Sequence[Backlog]) -> Iterator[Metric]:
    labels = ["destination", "partition"]
    chunks = GaugeMetricFamily(
        "amplitude_relay_backlog_chunks", "Chunks that wait in the log.", labels=labels
    )
    size = GaugeMetricFamily(
        "amplitude_relay_backlog_bytes", "Bytes that wait in the log.", labels=labels
    )
    age = GaugeMetricFamily(
        "amplitude_relay_backlog_oldest_age_seconds",
        "Age of the oldest chunk that waits; 0 where nothing does.",
        labels=labels,
    )
    for series, waiting in _by_series(backlog).items():
        chunks.add_metric(series, sum(one.chunks for one in waiting))
        size.add_metric(series, sum(one.size for one in waiting))
        age.add_metric(series, max(one.oldest_age or 0.0 for one in waiting))
    yield from (chunks, size, age)


def _by_series(backlog: Sequence[Backlog]) -> dict[tuple[str, str], list[Backlog]]:
    series: dict[tuple[str, str], list[Backlog]] = {}
    for number, one in enumerate(backlog):
        labels = one.place.destination, str(one.place.partition)
        if number >= MOST_PLACES:
            labels = REST, REST
        series.setdefault(labels, []).append(one)
    return series
