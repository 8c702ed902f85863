"""Metrics of a client, and events that name their trace, by OpenTelemetry.

Needs ``opentelemetry-api`` (the extra ``otel``); what is done with it is the affair of
the SDK that the application sets up.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from opentelemetry import context, metrics, trace

from amplitude_async._version import __version__
from amplitude_async.amplitude.events import GROUP_IDENTIFY, IDENTIFY
from amplitude_async.client.base import BaseClient
from amplitude_async.client.metrics import (
    AGE,
    AGE_BUCKETS,
    DURATION,
    DURATION_BUCKETS,
    METRICS,
    NO_ANSWER,
    Kind,
    Labels,
    Metric,
    Reading,
    read,
)
from amplitude_async.delivery.observing import Answered, Observer
from amplitude_async.plugins import EnrichmentPlugin

__all__ = ["TracePlugin", "instrument"]

# Instrumentations ask for one of these: the plain one is as old as they are.
_SUPPRESSED = (
    "suppress_instrumentation",
    getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"),
)


def instrument(
    client: BaseClient,
    meter_provider: metrics.MeterProvider | None = None,
    *,
    name: str | None = None,
    suppress_tracing: bool = True,
) -> Callable[[], None]:
    """Report a client's metrics, and keep its own requests out of traces.

    At any time, before the start as well. Once more for a client under the same name
    takes the place of the first time.

    Args:
        client: an ``Amplitude`` or ``MParticle``.
        meter_provider: gets the metrics; the global one by default.
        name: the attribute ``client`` of each point; the name of its destination by
            default. Several clients of one vendor need names of their own.
        suppress_tracing: no instrumentation makes spans of requests that the client
            itself sends, nor adds trace headers to them.

    Returns:
        What ends it.
    """
    provider = meter_provider or metrics.get_meter_provider()
    board = _board_of(provider)
    name = name or client.destination
    watcher = _Watcher(board, client, name, suppress_tracing=suppress_tracing)
    shown = _Shown(client, client.observe(watcher))
    board.put_up(name, shown)
    return partial(board.take_down, name, shown)


class _Shown:
    """A client on a board, and what ends its being observed."""

    def __init__(self, client: BaseClient, end: Callable[[], None]) -> None:
        self.client = client
        self.end = end


def _board_of(provider: metrics.MeterProvider) -> "_Board":
    """Give the one board of a provider, which keeps it itself.

    An instrument is made once for a provider and never ends: whoever asks for a second
    one of its name gets the first, with the callbacks that it has.
    """
    try:
        kept = vars(provider)
    except TypeError:
        return _Board(provider)
    board = kept.get(_KEY)
    return (
        board if isinstance(board, _Board) else kept.setdefault(_KEY, _Board(provider))
    )


_KEY = "_amplitude_async_board"


class _Board:
    """The instruments of one meter provider, and the clients that they show.

    Instruments are asked one by one, in whatever order; each reading is kept until an
    instrument asks for it a second time, so that all of one collection show the same
    moment.
    """

    def __init__(self, provider: metrics.MeterProvider) -> None:
        self._lock = threading.Lock()
        self._shown: dict[str, _Shown] = {}
        self._readings: dict[str, Reading] = {}
        self._asked: set[str] = set()
        meter = provider.get_meter("amplitude_async", __version__)
        for metric in METRICS:
            _make(meter, metric, partial(self._observations, metric))
        self.duration = meter.create_histogram(
            DURATION.name,
            DURATION.unit,
            DURATION.description,
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self.age = meter.create_histogram(
            AGE.name,
            AGE.unit,
            AGE.description,
            explicit_bucket_boundaries_advisory=AGE_BUCKETS,
        )

    def put_up(self, name: str, shown: _Shown) -> None:
        """Show a client, in place of the one of its name."""
        with self._lock:
            before = self._shown.get(name)
            self._shown[name] = shown
        if before is not None and before.client is shown.client:
            # Two would enter each request twice. Another client goes on, untraced.
            before.end()

    def take_down(self, name: str, shown: _Shown) -> None:
        """Show a client no more."""
        shown.end()
        with self._lock:
            if self._shown.get(name) is shown:
                del self._shown[name]

    def _observations(
        self, metric: Metric, _: metrics.CallbackOptions
    ) -> list[metrics.Observation]:
        with self._lock:
            if not self._readings or metric.name in self._asked:
                self._readings = {
                    name: read(shown.client) for name, shown in self._shown.items()
                }
                self._asked = set()
            self._asked.add(metric.name)
            readings = self._readings
        return [
            metrics.Observation(value, {"client": name, **_told(labels)})
            for name, reading in readings.items()
            for labels, value in reading[metric.name]
        ]


def _told(labels: Labels) -> dict[str, str]:
    """Leave out what says nothing, as an error that there was not."""
    return {name: value for name, value in labels.items() if value}


def _make(
    meter: metrics.Meter,
    metric: Metric,
    observe: Callable[[metrics.CallbackOptions], list[metrics.Observation]],
) -> None:
    make = {
        Kind.COUNTER: meter.create_observable_counter,
        Kind.AMOUNT: meter.create_observable_up_down_counter,
        Kind.GAUGE: meter.create_observable_gauge,
    }[metric.kind]
    make(metric.name, [observe], metric.unit, metric.description)


class _Watcher(Observer):
    """Enters how long requests took and how old events were."""

    def __init__(
        self, board: _Board, client: BaseClient, name: str, *, suppress_tracing: bool
    ) -> None:
        self._board = board
        self._labels = {"client": name, "destination": client.destination}
        self._suppress = suppress_tracing

    def sending(self) -> AbstractContextManager[object]:
        """Keep instrumentations out of the request."""
        return _untraced() if self._suppress else nullcontext()

    def answered(self, request: Answered) -> None:
        """Enter how long it took."""
        labels: dict[str, str | int] = dict(self._labels)
        if request.status:
            labels["http.response.status_code"] = request.status
        if not request.ok:
            labels["error.type"] = str(request.status or NO_ANSWER)
        self._board.duration.record(request.duration, labels)

    def delivered(self, ages: Sequence[float]) -> None:
        """Enter how old they were."""
        for age in ages:
            self._board.age.record(age, self._labels)


@contextmanager
def _untraced() -> Iterator[None]:
    here = context.get_current()
    for key in _SUPPRESSED:
        here = context.set_value(key, True, here)
    token = context.attach(here)
    try:
        yield
    finally:
        context.detach(token)


class TracePlugin(EnrichmentPlugin):
    """Puts the ids of the current trace and span into the properties of an event.

    Only where a span is recording; ``trace_id`` and ``span_id`` of the event's own stay
    as they are. Identifies have no event properties and are left alone.
    """

    name = "opentelemetry"

    def execute(self, event: Any) -> Any:
        """Add what the span says."""
        span = trace.get_current_span()
        if not span.is_recording():
            return event
        where = span.get_span_context()
        if not where.is_valid or getattr(event, "event_type", None) in _WITHOUT:
            return event
        event.event_properties = {
            "trace_id": trace.format_trace_id(where.trace_id),
            "span_id": trace.format_span_id(where.span_id),
            **(event.event_properties or {}),
        }
        return event


_WITHOUT = frozenset({IDENTIFY, GROUP_IDENTIFY, None})
