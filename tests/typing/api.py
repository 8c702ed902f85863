"""The public interface as type checkers see it. Never run, only checked.

A line with an ignore comment has to be an error: mypy and pyright complain where the
comment is not needed.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, assert_type
from uuid import UUID

import aiohttp
from fastapi import FastAPI

from amplitude_async import (
    Amplitude,
    Answered,
    BeforePlugin,
    Config,
    Delivery,
    DeliveryResult,
    DeliveryStatus,
    DestinationPlugin,
    DropReason,
    EnrichmentPlugin,
    Event,
    EventOptions,
    Health,
    Identify,
    IngestionMetadata,
    Observer,
    Overflow,
    Plan,
    Revenue,
    ServerZone,
    Stats,
    TypedEvent,
    bind,
    bindings,
    bound,
)
from amplitude_async.integrations.asgi import AmplitudeMiddleware, amplitude_lifespan
from amplitude_async.integrations.fastapi import AmplitudeDep
from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    MParticle,
    MParticleClosedError,
    MParticleDestination,
    UploadResult,
    UserIdentities,
)
from amplitude_async.storage import MemoryStorage, SQLiteStorage
from amplitude_async.sync import SyncAmplitude, SyncDelivery, SyncMParticle
from amplitude_async.testing import RecordingAmplitude

__all__: list[str] = []


class Watcher(Observer):
    """Hears of requests."""

    def answered(self, request: Answered) -> None:
        """See what there is to see."""
        assert_type(request.status, int)
        assert_type(request.duration, float)
        assert_type(request.ok, bool)


class CheckoutCompleted(TypedEvent):
    """An event of the application."""

    order_id: str
    total: Decimal
    coupon: str | None = None


class TeamEvent(Event):
    """An event of the host's with a key of its own."""

    team: str = "blue"


TeamEvent(event_type="e", user_id="user-1", time=5)


async def the_verbs(client: Amplitude) -> None:
    """Every verb takes typed fields and gives a handle; awaiting it, a result."""
    delivery = await client.track("Signed Up", user_id="user-1")
    assert_type(delivery, Delivery)
    assert_type(await delivery, DeliveryResult)
    event = Event(event_type="e", user_id=UUID(int=1), time=datetime.now(UTC))
    options = EventOptions(device_id="device-1", price=Decimal(1), plan=Plan())
    await client.track(event)
    await client.track(Event("e", user_id="user-1"))
    await client.track(event, options, ip="$remote", groups={"org": ["15", 16]})
    await client.track(
        CheckoutCompleted(order_id="o-1", total=Decimal("9.99")), user_id=42
    )
    assert_type(client.track_nowait("e", device_id="device-1"), Delivery)
    identify = Identify().set("plan", "pro").add("logins", 1).unset("trial")
    assert_type(identify, Identify)
    await client.identify(identify, options, user_id="user-1")
    await client.group_identify("org", "15", identify)
    await client.set_group("org", ["15", "21"], user_id="user-1")
    await client.revenue(Revenue(price=3.99, quantity=2), user_id="user-1")
    await client.revenue(Revenue(3.99, 2), user_id="user-1")


def what_is_assigned(event: Event, options: EventOptions) -> None:
    """A field takes what it can convert, and holds one type."""
    event.time = datetime.now(UTC)
    event.session_id = datetime.now(UTC)
    options.time = None
    event.time = "now"  # type: ignore[assignment]


async def what_the_verbs_refuse(client: Amplitude) -> None:
    """Wrong names and kinds are found before the program runs."""
    await client.track("e", userid="u")  # type: ignore[call-arg]
    await client.track("e", user_id=1.5)  # type: ignore[arg-type]
    await client.track("e", {"color": "red"})  # type: ignore[arg-type]
    await client.track(5)  # type: ignore[arg-type]
    await client.track("e", time="now")  # type: ignore[arg-type]
    await client.identify({"$set": {}})  # type: ignore[arg-type]
    await client.revenue(3.99)  # type: ignore[arg-type]
    Event(user_id="u")  # type: ignore[call-arg]
    EventOptions(event_properties={})  # type: ignore[call-arg]
    Revenue(price="3.99")  # type: ignore[arg-type]
    CheckoutCompleted(order_id="o-1")  # type: ignore[call-arg]


def the_result(result: DeliveryResult) -> None:
    """Its parts have types of their own."""
    assert_type(result.status, DeliveryStatus)
    assert_type(result.reason, DropReason | None)
    assert_type(result.code, int)
    assert_type(result.ok, bool)


async def the_handle(delivery: Delivery) -> None:
    """It can be looked at, listened to and awaited."""
    assert_type(delivery.insert_id, str)
    assert_type(delivery.done, bool)
    assert_type(delivery.result, DeliveryResult | None)
    delivery.add_done_callback(lambda done: done.result)


def hear(result: DeliveryResult) -> None:
    """Take a result; a plain callback."""
    assert_type(result.message, str)


async def hear_async(result: DeliveryResult) -> None:
    """Take a result; an async callback."""
    assert_type(result.message, str)


def construction(session: aiohttp.ClientSession) -> None:
    """Options are keyword arguments of the client, or one object, or both."""
    config = Config(api_key="key", flush_interval=timedelta(seconds=1))
    client = Amplitude(
        "key",
        config=config,
        session=session,
        plugins=[CountingPlugin(), scrub],
        flush_interval=2.5,
        server_zone="eu",
        overflow=Overflow.DROP_OLDEST,
        storage=MemoryStorage(),
        callback=hear,
        plan={"branch": "main"},
        ingestion_metadata=IngestionMetadata(source_name="ampli"),
        flush_timeout=None,
        logger=logging.getLogger(__name__),
    )
    Amplitude("key", callback=hear_async, server_zone=ServerZone.EU)
    assert_type(Amplitude.from_env(strict=True), Amplitude)
    assert_type(Amplitude.from_env(api_key="key"), Amplitude)
    assert_type(client.config, Config)
    assert_type(client.stats, Stats)
    assert_type(client.stats.destinations, Mapping[str, Stats])
    assert_type(client.stats.oldest_age, float | None)
    assert_type(client.health, Health)
    assert_type(client.destination, str)
    assert_type(client.observe(Watcher()), Callable[[], None])
    client.observe(object())  # type: ignore[arg-type]
    client.opt_out = True
    Amplitude("key", flush_queuesize=5)  # type: ignore[call-arg]
    Amplitude("key", flush_interval="soon")  # type: ignore[arg-type]
    Amplitude("key", config)
    Amplitude(Config("key", flush_interval=5))
    Amplitude("key", config, session)  # type: ignore[call-arg]
    client.config = config  # type: ignore[misc]


async def the_life(client: Amplitude) -> None:
    """Entering gives the client; draining gives the account."""
    async with client as entered:
        assert_type(entered, Amplitude)
        assert_type(await client.flush(), Stats)
        assert_type(await client.flush(timeout=None), Stats)
        assert_type(await client.add(CountingPlugin()), Amplitude)
        assert_type(await client.add(scrub, replace=True), Amplitude)
        await client.remove("scrub")
        assert_type(await client.purge("user-1"), int)
    assert_type(await client.shutdown(1.5), Stats)
    await client.add(5)  # type: ignore[arg-type]


# --- Plugins ---


class CountingPlugin(EnrichmentPlugin):
    """Plain hooks."""

    name = "counting"
    last = True

    def __init__(self) -> None:
        self.count = 0

    def setup(self, client: Amplitude) -> None:
        """Take the client's own type."""
        assert_type(client.config.url, str)

    def execute(self, event: Event) -> Event | None:
        """Return the event or drop it."""
        self.count += 1
        event.event_id = self.count
        return event if event.user_id else None


class LookupPlugin(BeforePlugin):
    """Async hooks, one for each kind of event."""

    on_error = "drop"

    async def setup(self, client: Amplitude) -> None:
        """Wait for something."""

    async def track(self, event: Event) -> Event:
        """Wait for something."""
        return event

    def revenue(self, event: Event) -> None:
        """Drop every sale."""


class SendPlugin(DestinationPlugin):
    """A destination."""

    async def execute(self, event: Event) -> None:
        """Send the event."""
        assert_type(event.event_type, str)

    async def flush(self) -> None:
        """Wait for something."""

    def shutdown(self) -> None:
        """Close something."""


class WrongPlugin(EnrichmentPlugin):
    """What a plugin cannot say."""

    on_error = "ignore"  # type: ignore[assignment]
    last = "yes"  # type: ignore[assignment]


async def scrub(event: Event) -> Event | None:
    """Drop what must not leave the house."""
    return None if event.ip else event


async def second_vendor() -> None:
    """The mParticle client, its models and the destination that feeds it."""
    batch = Batch(
        environment="development",
        user_identities=UserIdentities(customer_id="c-1"),
        events=[CustomEvent(event_name="Opened", custom_event_type="other")],
    )
    async with MParticle("key", "secret", environment="development") as mparticle:
        try:
            assert_type(await mparticle.upload(batch), UploadResult)
        except MParticleClosedError as error:
            assert_type(error.result, UploadResult)
        assert_type(await mparticle.upload_many([batch]), list[UploadResult])
        assert_type(await mparticle.send(batch), Delivery)
        assert_type(await mparticle.flush(), Stats)
        await mparticle.send("batch")  # type: ignore[arg-type]
        await mparticle.upload_many(batch)  # type: ignore[arg-type]
        happened = [CustomEvent(event_name=name) for name in ("Opened", "Closed")]
        shortly = Batch(
            environment="development",
            user_identities={"customer_id": "c-1"},
            consent_state={"gdpr": {}},
            events=happened,
        )
        shortly.events.append(happened[0])
        assert_type(shortly.to_wire(), dict[str, Any])
        async with Amplitude("key", plugins=[MParticleDestination(mparticle)]):
            pass


async def durable_and_recorded() -> None:
    """A storage is an option; the recording client is a client."""
    async with Amplitude("key", storage=SQLiteStorage("spool", synchronous="full")):
        pass
    SQLiteStorage("spool", synchronous="often")  # type: ignore[arg-type]
    recorder = RecordingAmplitude()
    assert_type(await recorder.track("Opened", user_id="user-1"), Delivery)
    found: Mapping[str, object] = recorder.assert_tracked("Opened")
    del found


def check_bound_fields() -> None:
    """What is bound are fields of an event, by their names and types."""
    bind(user_id="user-1", event_properties={"job": "nightly"}, session_id=1)
    bind(user_id=None)
    with bound(user_id=UUID(int=1), groups={"company": ["c-1", "c-2"]}) as nothing:
        assert_type(nothing, None)
    assert_type(bindings(), dict[str, Any])
    bind(user="user-1")  # type: ignore[call-arg]
    bind(city=1)  # type: ignore[arg-type]


def synchronous(batch: Batch) -> None:
    """The synchronous clients: the same arguments, other handles."""
    with SyncAmplitude("key", flush_interval=1.0) as client:
        delivery = client.track("Opened", user_id="user-1")
        assert_type(delivery, SyncDelivery)
        assert_type(delivery.result(timeout=1.0), DeliveryResult)
        assert_type(client.identify(Identify().set("plan", "pro")), SyncDelivery)
        assert_type(client.revenue(Revenue(revenue=9.5)), SyncDelivery)
        assert_type(client.flush(), Stats)
        assert_type(client.purge("user-1"), int)
        client.track("Opened", usr_id="user-1")  # type: ignore[call-arg]
    SyncAmplitude("key", flush_intervall=1.0)  # type: ignore[call-arg]
    with SyncMParticle.from_env() as mparticle:
        assert_type(mparticle.upload(batch), UploadResult)
        assert_type(mparticle.send(batch), SyncDelivery)


async def whose_request(scope: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say who makes a request, as an application would."""
    return {"user_id": scope["user"]} if "user" in scope else None


def check_a_service() -> None:
    """A middleware and a lifespan fit where FastAPI takes them, options included."""
    app = FastAPI(lifespan=amplitude_lifespan(flush_interval=5.0))
    app.add_middleware(AmplitudeMiddleware, identify=whose_request, capture=["ip"])
    app.add_middleware(AmplitudeMiddleware, request_event="Request", trusted_hops=1)
    amplitude_lifespan(flush_intervall=5.0)  # type: ignore[call-arg]


async def check_a_handler(amplitude: AmplitudeDep) -> None:
    """A handler has the client with all its verbs."""
    assert_type(await amplitude.track("Paid", user_id="user-1"), Delivery)
