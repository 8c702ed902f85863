"""Metrics that add up, events that name their trace, requests that make no span."""

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.instrumentation.aiohttp_client")

from opentelemetry import metrics as api
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from amplitude_async import Amplitude, DestinationPlugin, Event, Identify
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.integrations.opentelemetry import TracePlugin, instrument
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from amplitude_async.testing import capture

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData

__all__: list[str] = []

Connect = Callable[..., Amplitude]
USER = "user-1234567890"
UNITS = {
    "amplitude.client.event.accepted": "{event}",
    "amplitude.client.event.processed": "{event}",
    "amplitude.client.event.inflight": "{event}",
    "amplitude.client.event.oldest_age": "s",
    "amplitude.client.event.age": "s",
    "amplitude.client.queue.size": "{event}",
    "amplitude.client.queue.capacity": "{event}",
    "amplitude.client.queue.bytes": "By",
    "amplitude.client.request.duration": "s",
    "amplitude.client.spool.events": "{event}",
    "amplitude.client.spool.bytes": "By",
    "amplitude.client.spool.oldest_age": "s",
    "amplitude.client.health": "{client}",
}

Point = tuple[dict[str, Any], Any]


def points(data: "MetricsData | None") -> dict[str, list[Point]]:
    """Give the points of each metric: its attributes, and a value or histogram."""
    found: dict[str, list[Point]] = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert metric.unit == UNITS[metric.name]
                for point in metric.data.data_points:
                    value = getattr(point, "value", point)
                    attributes = dict(point.attributes or {})
                    found.setdefault(metric.name, []).append((attributes, value))
    return found


def value(found: dict[str, list[Point]], name: str, **labels: str) -> float:
    """Add up the points of a metric that have these attributes."""
    name = f"amplitude.client.{name}"
    return float(
        sum(
            value
            for attributes, value in found[name]
            if labels.items() <= underscored(attributes).items()
        )
    )


def underscored(attributes: dict[str, Any]) -> dict[str, Any]:
    """Name attributes as arguments can be named."""
    return {name.replace(".", "_"): value for name, value in attributes.items()}


def lawful(found: dict[str, list[Point]], **labels: str) -> bool:
    """Say whether what came in is what is decided and what waits."""
    came = value(found, "event.accepted", **labels)
    decided = value(found, "event.processed", **labels)
    return came == decided + value(found, "event.inflight", **labels)


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """Return what collects."""
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    """Yield a provider that nobody else has."""
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


# --- Metrics ---


async def test_every_metric_is_there_before_the_first_event(
    connect: Connect, provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """With a client that is not even started; histograms come with a request."""
    client = connect(max_storage_capacity=77)
    instrument(client, provider)
    found = points(reader.get_metrics_data())

    assert set(UNITS) - set(found) == {
        "amplitude.client.request.duration",
        "amplitude.client.event.age",
    }
    assert value(found, "event.accepted") == value(found, "event.processed") == 0
    assert value(found, "queue.capacity") == 77
    assert value(found, "health", state="healthy") == 1
    assert value(found, "health") == 1


async def test_counters_say_how_events_ended(
    connect: Connect,
    provider: MeterProvider,
    reader: InMemoryMetricReader,
    emulator: Emulator,
) -> None:
    """By outcome, and by our own reason where it is a bad one."""
    client = connect()
    instrument(client, provider)
    async with client:
        for _ in range(5):
            await client.track("Seen", user_id=USER)
        await client.track("Seen", user_id="x")  # too short
        await client.flush()
        emulator.faults.add(Fault(delay=math.inf))
        await client.track("Seen", user_id=USER)
        await client.flush(timeout=0.05)
        found = points(reader.get_metrics_data())
        assert value(found, "event.accepted", origin="tracked") == 7
        assert value(found, "event.inflight") == 1
        assert value(found, "queue.size") == 1
        assert value(found, "event.oldest_age") > 0
        assert lawful(found)
        client.opt_out = True
        await client.track("Seen", user_id=USER)
        await client.shutdown(0.0)
    found = points(reader.get_metrics_data())

    assert value(found, "event.processed", outcome="delivered") == 5
    assert value(found, "event.processed", outcome="rejected") == 1
    assert value(found, "event.processed", error_type="rejected") == 1
    assert value(found, "event.processed", outcome="dropped") == 2
    assert value(found, "event.processed", error_type="opt_out") == 1
    assert value(found, "event.processed", error_type="shutdown") == 1
    assert value(found, "event.inflight") == 0
    assert lawful(found)
    [(labels, ages)] = found["amplitude.client.event.age"]
    assert (labels["destination"], ages.count) == ("amplitude", 5)
    requests = found["amplitude.client.request.duration"]
    assert {p[0].get("http.response.status_code") for p in requests} == {200}
    assert "error.type" not in requests[0][0]


async def test_requests_that_fail_say_why(
    connect: Connect,
    provider: MeterProvider,
    reader: InMemoryMetricReader,
    emulator: Emulator,
) -> None:
    """By the status that came back, or that none did."""
    emulator.faults.add(Fault(hang_up="before"), Fault.server_error())
    client = connect(retry_base_interval=0.01)
    instrument(client, provider)
    async with client:
        await (await client.track("Seen", user_id=USER))
    requests = points(reader.get_metrics_data())["amplitude.client.request.duration"]

    assert sorted(p[0].get("error.type", "") for p in requests) == [
        "",
        "500",
        "no_answer",
    ]


async def test_many_ages_are_all_entered(
    connect: Connect, provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """In shares, so that the loop has its turns."""
    client = connect()
    instrument(client, provider)
    async with client:
        for _ in range(900):
            await client.track("Seen", user_id=USER)
        await client.flush()
        for _ in range(10):
            await asyncio.sleep(0)
    [(_, ages)] = points(reader.get_metrics_data())["amplitude.client.event.age"]
    assert ages.count == 900


async def test_the_law_holds_at_any_scrape(
    connect: Connect, provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """Also in a thread of the exporter's, while the loop is busy."""
    client = connect(max_storage_capacity=50_000, flush_queue_size=50)
    instrument(client, provider)
    over = threading.Event()
    seen: list[dict[str, list[Point]]] = []

    def scrape() -> None:
        while not over.is_set():
            seen.append(points(reader.get_metrics_data()))

    async with client:
        scraping = asyncio.create_task(asyncio.to_thread(scrape))
        for number in range(2_000):
            await client.track("Seen", user_id=f"user-{number % 50:06}")
        await client.flush()
        over.set()
        await scraping
    seen.append(points(reader.get_metrics_data()))

    assert len(seen) > 2
    assert [found for found in seen if not lawful(found)] == []
    assert value(seen[-1], "event.processed", outcome="delivered") == 2_000


async def test_two_readers_see_what_adds_up(connect: Connect) -> None:
    """Each has collections of its own."""
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    client = connect()
    instrument(client, provider)
    async with client:
        for number in range(6):
            await client.track("Seen", user_id=USER)
            found = points(readers[number % 2].get_metrics_data())
            assert value(found, "event.accepted") == number + 1
            assert lawful(found)
    provider.shutdown()


async def test_a_client_that_is_instrumented_twice_counts_once(
    connect: Connect, provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """As two parts of an application may do; the second one's end is the end."""
    client = connect()
    first, second = instrument(client, provider), instrument(client, provider)
    async with client:
        await (await client.track("Seen", user_id=USER))
        first()
        await (await client.track("Seen", user_id=USER))
        found = points(reader.get_metrics_data())
        assert value(found, "event.accepted") == 2
        assert [p.count for _, p in found["amplitude.client.request.duration"]] == [2]
        assert [p.count for _, p in found["amplitude.client.event.age"]] == [2]
        second()
        second()
    assert "amplitude.client.event.accepted" not in points(reader.get_metrics_data())


class Plain(DestinationPlugin):
    """Takes everything."""

    name = "plain"

    async def execute(self, _: Event) -> None:
        """Take it."""


async def test_each_destination_has_series_of_its_own(
    connect: Connect, provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """The law holds for each of them."""
    client = connect(plugins=[Plain()])
    instrument(client, provider)
    async with client:
        await client.track("Seen", user_id=USER)
        await client.flush()
        found = points(reader.get_metrics_data())
    for destination in ("amplitude", "plain"):
        here = {"destination": destination}
        assert value(found, "event.processed", outcome="delivered", **here) == 1
        assert lawful(found, **here)


async def test_each_destination_has_a_capacity(
    connect: Connect, provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """The rule that a queue fills asks for the share of it."""
    client = connect(plugins=[Plain()], max_storage_capacity=7)
    instrument(client, provider)
    async with client:
        found = points(reader.get_metrics_data())
    assert [
        (labels["destination"], capacity)
        for labels, capacity in found["amplitude.client.queue.capacity"]
    ] == [("amplitude", 7), ("plain", 7)]


async def test_two_clients_are_told_apart(
    connect: Connect, provider: MeterProvider, reader: InMemoryMetricReader
) -> None:
    """By the vendor, or by a name; who leaves is shown no more, and may come back."""
    orders, mails = connect(), connect()
    end = instrument(orders, provider)
    instrument(mails, provider, name="mails")
    async with Emulator() as emulator, orders, mails:
        batches = MParticle(
            "key", "secret", base_url=emulator.mparticle_url, trust_env=False
        )
        instrument(batches, provider)
        async with batches:
            await orders.track("Seen", user_id=USER)
            await mails.track("Seen", user_id=USER)
            await mails.track("Seen", user_id=USER)
            event = CustomEvent(event_name="Seen", custom_event_type="other")
            batch = Batch(
                environment="development",
                user_identities={"customer_id": "c-1"},
                events=[event],
            )
            await batches.send(batch)
            await batches.upload(batch)
            found = points(reader.get_metrics_data())
    counts = [
        value(found, "event.accepted", client=name)
        for name in ("amplitude", "mails", "mparticle")
    ]
    assert counts == [1, 2, 1]
    end()
    end()
    found = points(reader.get_metrics_data())
    assert value(found, "event.accepted", client="amplitude") == 0
    instrument(orders, provider)
    found = points(reader.get_metrics_data())
    assert value(found, "event.accepted", client="amplitude") == 1


async def test_no_label_names_a_person_a_key_or_an_event(
    connect: Connect,
    provider: MeterProvider,
    reader: InMemoryMetricReader,
    emulator: Emulator,
) -> None:
    """Whatever went wrong."""
    emulator.faults.add(Fault(401))
    client = connect()
    instrument(client, provider)
    async with client:
        await client.track("Secret Plan", user_id=USER, device_id="device-77")
        await client.flush()
        text = repr(points(reader.get_metrics_data()))
    for word in (USER, "device-77", "Secret Plan", "0123456789abcdef"):
        assert word not in text


async def test_without_an_sdk_nothing_happens(connect: Connect) -> None:
    """The API alone makes instruments that do nothing."""
    client = connect()
    end = instrument(client, api.NoOpMeterProvider())
    async with client:
        assert (await (await client.track("Seen", user_id=USER))).ok
    end()


# --- Traces ---


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Yield what collects the spans of every aiohttp session made from here on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter
    instrumentor.uninstrument()
    provider.shutdown()


async def test_own_requests_make_no_span(
    connect: Connect, spans: InMemorySpanExporter, provider: MeterProvider
) -> None:
    """Those of the application do, meanwhile and in the same session."""
    async with aiohttp.ClientSession() as session:
        given = connect(session=session)
        own = connect()
        for name, client in (("given", given), ("own", own)):
            instrument(client, provider, name=name)
            async with client, Emulator() as other:
                delivery = await client.track("Seen", user_id=USER)
                async with session.get(f"{other.url}/_emulator/health") as answer:
                    await answer.read()
                assert (await delivery).ok
                async with session.get(f"{other.url}/_emulator/health") as answer:
                    await answer.read()
    assert [span.name for span in spans.get_finished_spans()] == ["GET"] * 4


async def test_direct_uploads_make_no_span(
    spans: InMemorySpanExporter, provider: MeterProvider
) -> None:
    """They run in the caller's task, which is traced as before."""
    event = CustomEvent(event_name="Seen", custom_event_type="other")
    batch = Batch(
        environment="development",
        user_identities={"customer_id": "c-1"},
        events=[event],
    )
    async with Emulator() as emulator:
        client = MParticle(
            "key", "secret", base_url=emulator.mparticle_url, trust_env=False
        )
        instrument(client, provider)
        async with client, aiohttp.ClientSession() as session:
            assert (await client.upload(batch)).ok
            async with session.get(f"{emulator.url}/_emulator/health") as answer:
                await answer.read()
    assert [span.name for span in spans.get_finished_spans()] == ["GET"]


async def test_spans_can_be_wanted(
    connect: Connect, spans: InMemorySpanExporter, provider: MeterProvider
) -> None:
    """Whoever looks for what the client does can see its requests."""
    client = connect()
    instrument(client, provider, suppress_tracing=False)
    async with client:
        await (await client.track("Seen", user_id=USER))
    assert [span.name for span in spans.get_finished_spans()] == ["POST"]


async def test_an_event_names_its_trace() -> None:
    """Where a span records; what the event says itself wins."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    mine = {"price": 1, "trace_id": "mine"}
    with capture() as events:
        async with Amplitude("key", plugins=[TracePlugin()]) as client:
            with tracer.start_as_current_span("work") as span:
                await client.track("In", user_id=USER)
                await client.track("Own", user_id=USER, event_properties=mine)
                await client.identify(Identify().set("plan", "pro"), user_id=USER)
            await client.track("Out", user_id=USER)
    where = span.get_span_context()

    given, own, plan, out = events
    assert given.properties == {
        "trace_id": f"{where.trace_id:032x}",
        "span_id": f"{where.span_id:016x}",
    }
    assert own.properties == {**mine, "span_id": f"{where.span_id:016x}"}
    assert mine == {"price": 1, "trace_id": "mine"}
    assert "event_properties" not in out.wire
    assert "event_properties" not in plan.wire
    events.assert_identified(USER, set={"plan": "pro"})


def test_the_package_itself_needs_no_opentelemetry() -> None:
    """It is loaded with the integration only."""
    program = (
        "import sys, amplitude_async, amplitude_async.client.metrics\n"
        "assert not [n for n in sys.modules if n.startswith('opentelemetry')]\n"
        "import amplitude_async.integrations.opentelemetry\n"
        "assert 'opentelemetry.sdk' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=20)
    assert done.returncode == 0
