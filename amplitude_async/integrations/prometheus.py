"""Metrics of clients for Prometheus, without OpenTelemetry.

Needs ``prometheus-client`` (the extra of the name ``prometheus``).
"""

import asyncio
import contextvars
import logging
import os
import threading
from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from amplitude_async.client.base import BaseClient
from amplitude_async.client.metrics import (
    AGE,
    AGE_BUCKETS,
    DURATION,
    DURATION_BUCKETS,
    METRICS,
    NO_ANSWER,
    Kind,
    Metric,
    Reading,
    read,
)
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.observing import Answered, Observer
from amplitude_async.delivery.reporting import Reporter, named
from amplitude_async.shown import shown

__all__ = ["AmplitudeCollector"]

_TYPES: Final = {Kind.COUNTER: "counter", Kind.AMOUNT: "gauge", Kind.GAUGE: "gauge"}
_VARIABLES: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


class AmplitudeCollector(Collector):
    """Gives Prometheus what clients count, at the moment it asks.

    All series of one client are of one moment, so that the account adds up at any
    scrape. Where ``PROMETHEUS_MULTIPROC_DIR`` is set nobody asks a collector: then the
    same metrics are written to the files of ``prometheus_client`` after each request
    and, inside of ``updating()``, every few seconds.

    Args:
        clients: ``Amplitude`` or ``MParticle``, started or not.
        names: the label ``client`` of each; by default the name of its destination,
            with a number where several have the same.
        registry: where to register; None: nowhere.

    Raises:
        ValueError: there are not as many names as clients, or one comes twice.
    """

    def __init__(
        self,
        *clients: BaseClient,
        names: Sequence[str] | None = None,
        registry: CollectorRegistry | None = REGISTRY,
    ) -> None:
        self._clients = dict(zip(_names(clients, names), clients, strict=True))
        self._duration = _histogram(DURATION, DURATION_BUCKETS)
        self._age = _histogram(AGE, AGE_BUCKETS)
        self._files = _Files() if any(map(os.environ.get, _VARIABLES)) else None
        logger = logging.getLogger("amplitude_async")
        self._reporter = Reporter(logger, LoopClock(), "prometheus")
        self._registry = registry
        if registry is not None:
            # First, as it may refuse: then nobody observes.
            registry.register(self)
        self._endings = [
            client.observe(_Watcher(name, client, self))
            for name, client in self._clients.items()
        ]

    def close(self) -> None:
        """Observe the clients no more, and leave the registry."""
        for end in self._endings:
            end()
        registry, self._registry = self._registry, None
        if registry is not None:
            registry.unregister(self)

    # Asked by a registry -----------------------------------------------------

    def describe(self) -> Iterable[Family]:
        """Name all families, without a look at the clients."""
        return [_family(metric) for metric in METRICS] + [
            Family(_name(metric), metric.description, "histogram")
            for metric in (DURATION, AGE)
        ]

    def collect(self) -> Iterator[Family]:
        """Read all clients, each at one moment."""
        readings = self._read()
        for metric in METRICS:
            family = _family(metric)
            suffix = "_total" if metric.kind is Kind.COUNTER else ""
            for name, reading in readings.items():
                for labels, value in reading[metric.name]:
                    told = {label: labels.get(label, "") for label in metric.labels}
                    here = {"client": name, "destination": labels["destination"]}
                    family.add_sample(
                        family.name + suffix, here | _underscored(told), value
                    )
            yield family
        yield from self._duration.collect()
        yield from self._age.collect()

    def _read(self) -> dict[str, Reading]:
        return {name: read(client) for name, client in self._clients.items()}

    # Written for a registry of several processes -----------------------------

    def update(self) -> None:
        """Write all metrics down for the other processes, where there are any."""
        if self._files is not None:
            self._files.write(self._read())

    @asynccontextmanager
    async def updating(self, every: float = 5.0) -> AsyncIterator[None]:
        """Update every so many seconds, and once more at the end.

        Enter it before the clients, so that it ends after their shutdown. With a single
        process it does nothing.

        Raises:
            OSError: nothing can be written to the directory. Once something was, what
                goes wrong is logged and no more.
        """
        if self._files is None:
            yield
            return
        self.update()
        task = asyncio.create_task(self._keep_updating(every))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._update_or_tell()

    async def _keep_updating(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            self._update_or_tell()

    def _update_or_tell(self) -> None:
        try:
            self.update()
        except Exception as error:  # noqa: BLE001 - no metric is worth the service
            text = "metrics were not written: %s"
            self._reporter.error("metrics", text, named(error))

    def update_soon(self) -> None:
        """Update when what is going on has been written down."""
        if self._files is not None:
            loop, empty = asyncio.get_running_loop(), contextvars.Context()
            loop.call_soon(self._update_or_tell, context=empty)

    # What observers hear -----------------------------------------------------

    def enter_duration(
        self, name: str, destination: str, status: int, *, ok: bool, seconds: float
    ) -> None:
        """Enter how long a request took."""
        error = "" if ok else str(status or NO_ANSWER)
        answered = str(status) if status else ""
        self._duration.labels(name, destination, answered, error).observe(seconds)

    def enter_ages(self, name: str, destination: str, ages: Sequence[float]) -> None:
        """Enter how old events were when they were delivered."""
        series = self._age.labels(name, destination)
        for age in ages:
            series.observe(age)

    def __repr__(self) -> str:
        return f"<AmplitudeCollector {', '.join(map(shown, self._clients))}>"


class _Watcher(Observer):
    """Passes on what one client tells."""

    def __init__(
        self, name: str, client: BaseClient, collector: AmplitudeCollector
    ) -> None:
        self._name = name
        self._destination = client.destination
        self._collector = collector

    def answered(self, request: Answered) -> None:
        """Enter how long it took."""
        self._collector.enter_duration(
            self._name,
            self._destination,
            request.status,
            ok=request.ok,
            seconds=request.duration,
        )
        self._collector.update_soon()

    def delivered(self, ages: Sequence[float]) -> None:
        """Enter how old they were."""
        self._collector.enter_ages(self._name, self._destination, ages)


class _Files:
    """Metrics of this process in the files that all processes are read from.

    What others add up are counters, so that they get what came since the last time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._written: dict[tuple[str, ...], float] = {}
        self._made = {metric.name: _make(metric) for metric in METRICS}

    def write(self, readings: dict[str, Reading]) -> None:
        """Write values of one moment down."""
        with self._lock:
            if self._pid != os.getpid():
                # A forked child counts from nothing, in files of its own.
                self._pid, self._written = os.getpid(), {}
            for name, reading in readings.items():
                for metric in METRICS:
                    for labels, value in reading[metric.name]:
                        told = [labels.get(label, "") for label in metric.labels]
                        series = (name, labels["destination"], *told)
                        self._set(metric, series, value)

    def _set(self, metric: Metric, series: tuple[str, ...], value: float) -> None:
        made = self._made[metric.name]
        if isinstance(made, Gauge):
            made.labels(*series).set(value)
            return
        key = (metric.name, *series)
        last = self._written.get(key, 0.0)
        # One that is lower than before is that of a client that began anew.
        made.labels(*series).inc(value if value < last else value - last)
        self._written[key] = value


def _names(clients: Sequence[BaseClient], names: Sequence[str] | None) -> list[str]:
    if names is None:
        seen: Tally[str] = Tally()
        made = []
        for client in clients:
            seen[client.destination] += 1
            number = seen[client.destination]
            made.append(client.destination + (f"-{number}" if number > 1 else ""))
        return made
    if len(names) != len(clients) or len(set(names)) < len(names):
        msg = f"names={shown(names)}: give each of {len(clients)} clients its own"
        raise ValueError(msg)
    return list(names)


def _name(metric: Metric) -> str:
    """Name a metric as OpenTelemetry's exporters for Prometheus do."""
    unit = "_seconds" if metric.unit == "s" else ""
    return metric.name.replace(".", "_") + unit


def _underscored(labels: dict[str, str]) -> dict[str, str]:
    return {name.replace(".", "_"): value for name, value in labels.items()}


def _labels(metric: Metric) -> list[str]:
    return ["client", "destination", *_underscored(dict.fromkeys(metric.labels, ""))]


def _family(metric: Metric) -> Family:
    return Family(_name(metric), metric.description, _TYPES[metric.kind])


def _make(metric: Metric) -> Counter | Gauge:
    name, told, labels = _name(metric), metric.description, _labels(metric)
    if metric.kind is Kind.COUNTER:
        return Counter(name, told, labels, registry=None)
    mode: Literal["livesum", "livemax"] = (
        "livesum" if metric.kind is Kind.AMOUNT else "livemax"
    )
    return Gauge(name, told, labels, registry=None, multiprocess_mode=mode)


def _histogram(metric: Metric, buckets: Sequence[float]) -> Histogram:
    return Histogram(
        _name(metric),
        metric.description,
        _labels(metric),
        buckets=buckets,
        registry=None,
    )
