"""A FastStream service has one client, and each message its own bound fields."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest

from amplitude_async import Amplitude, bind, bindings, bound
from amplitude_async.emulator import Emulator
from tests.integrations.interleaved import Interleaved

pytest.importorskip("faststream")
pytest.importorskip("redis")

from faststream import Context, ContextRepo, FastStream
from faststream.message import StreamMessage
from faststream.redis import ListSub, RedisBroker, TestRedisBroker

from amplitude_async.integrations.carrier import HEADER
from amplitude_async.integrations.faststream import (
    AmplitudeDep,
    AmplitudeMessageMiddleware,
    amplitude_lifespan,
)

__all__: list[str] = []

MESSAGES = 1000
Message = Annotated[StreamMessage[Any], Context("message")]


def users(emulator: Emulator) -> list[str | None]:
    """Return the user of each event that has arrived."""
    return [event.get("user_id") for event in emulator.events]


def broker_with(**options: Any) -> RedisBroker:
    """Make a broker with our middleware."""
    return RedisBroker(middlewares=[AmplitudeMessageMiddleware(**options)])


@asynccontextmanager
async def running(broker: RedisBroker, **options: Any) -> AsyncIterator[FastStream]:
    """Run an application as its command line does, on a broker in memory."""
    app = FastStream(broker, lifespan=amplitude_lifespan(**options))
    async with TestRedisBroker(broker), app.lifespan_context(worker_id=None):
        yield app


async def test_the_client_lives_as_long_as_the_service(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """All messages have the same client, and the end of the lifespan drains it."""
    broker = broker_with()
    seen: list[Amplitude] = []

    @broker.subscriber("welcome")
    async def welcome(user: str, amplitude: AmplitudeDep) -> None:
        seen.append(amplitude)
        await amplitude.track("Welcomed", user_id=user)

    async with running(broker, **options) as app:
        await broker.publish("user-1", "welcome")
        await broker.publish("user-2", "welcome")
    assert app.context.get("amplitude") is None

    assert users(emulator) == ["user-1", "user-2"]
    assert seen[0] is seen[1]


async def test_a_lifespan_of_ones_own_holds_ours(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """What the application opens itself lies around the client, or within it."""
    broker = broker_with()
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(context: ContextRepo) -> AsyncIterator[None]:
        log.append("open")
        async with amplitude_lifespan(**options)(context):
            yield
        log.append(f"closed after {len(emulator.events)}")

    @broker.subscriber("welcome")
    async def welcome(user: str, amplitude: AmplitudeDep) -> None:
        await amplitude.track("Welcomed", user_id=user)

    app = FastStream(broker, lifespan=lifespan)
    async with TestRedisBroker(broker), app.lifespan_context():
        await broker.publish("user-1", "welcome")

    assert log == ["open", "closed after 1"]


async def test_a_client_of_the_application_is_left_open(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """Whoever hands a client over shuts it down."""
    broker = broker_with()
    async with Amplitude("key", **options) as client:
        app = FastStream(broker, lifespan=amplitude_lifespan(client))
        async with app.lifespan_context():
            assert app.context.get("amplitude") is client
        await client.track("Still Open", user_id="user-1")

    assert users(emulator) == ["user-1"]


async def test_what_is_bound_travels_where_both_sides_want_it(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """What a handler publishes and what it returns takes the user further."""
    broker = broker_with(carry=True)

    @broker.subscriber("last")
    async def last(name: str, amplitude: AmplitudeDep) -> None:
        await amplitude.track(f"Last {name}")

    @broker.subscriber("first")
    @broker.publisher("last")
    async def first(_: str, amplitude: AmplitudeDep) -> str:
        await amplitude.track("First")
        bind(event_properties={"job": "first"})
        await broker.publish("published", "last")
        return "returned"

    async with running(broker, **options):
        with bound(user_id="user-1", ip="192.0.2.1"):
            await broker.publish("go", "first")
            assert bindings() == {"user_id": "user-1", "ip": "192.0.2.1"}

    assert {
        event["event_type"]: (event["user_id"], event.get("event_properties"))
        for event in emulator.events
    } == {
        "First": ("user-1", None),
        "Last published": ("user-1", {"job": "first"}),
        "Last returned": ("user-1", {"job": "first"}),
    }


async def test_nothing_travels_unless_asked(options: dict[str, Any]) -> None:
    """Without carry, a handler in the same process does not see the sender's fields."""
    broker = broker_with()
    seen: list[Any] = []

    @broker.subscriber("look")
    async def look(_: str) -> None:
        seen.append(bindings())

    async with running(broker, **options):
        with bound(user_id="user-1"):
            await broker.publish("go", "look")

    assert seen == [{}]


async def test_a_handlers_user_does_not_reach_the_sender(
    options: dict[str, Any],
) -> None:
    """A request and its answer are two scopes, in one process too."""
    broker = broker_with(carry=True)

    @broker.subscriber("ask")
    async def ask(_: str) -> str:
        bind(user_id="user-2")
        return "answer"

    async with running(broker, **options):
        with bound(user_id="user-1"):
            answer = await broker.request("go", "ask")
            assert bindings() == {"user_id": "user-1"}

    assert await answer.decode() == "answer"


async def test_what_is_bound_around_the_service_is_bound_in_its_messages(
    options: dict[str, Any],
) -> None:
    """Fields of the whole service are in each message, below those of the carrier."""
    broker = broker_with(carry=True)
    seen: list[Any] = []

    @broker.subscriber("look")
    async def look(_: str) -> None:
        seen.append(bindings())

    with bound(event_properties={"service": "mailer"}):
        context = running(broker, **options)
        await context.__aenter__()
    with bound(user_id="user-1"):
        await broker.publish("go", "look")
    await context.__aexit__(None, None, None)

    assert seen == [{"user_id": "user-1", "event_properties": {"service": "mailer"}}]


@pytest.mark.parametrize("header", ["{", '{"v":2}', "x" * 5000])
async def test_a_forged_header_breaks_no_message(
    header: Any, options: dict[str, Any]
) -> None:
    """The message is handled without identity, whatever the header holds."""
    broker = broker_with(carry=True)
    seen: list[Any] = []

    @broker.subscriber("look")
    async def look(_: str) -> None:
        seen.append(bindings())

    async with running(broker, **options):
        await broker.publish("go", "look", headers={HEADER: header})

    assert seen == [{}]


async def test_headers_of_the_sender_stay_as_they_are(options: dict[str, Any]) -> None:
    """The carrier is one more header of the message; the caller's dict is untouched."""
    broker = broker_with(carry=True)
    seen: list[Any] = []
    headers = {"team": "billing"}

    @broker.subscriber("look")
    async def look(_: str, message: Message) -> None:
        seen.append((message.headers["team"], message.headers[HEADER]))

    async with running(broker, **options):
        with bound(user_id="user-1"):
            await broker.publish("go", "look", headers=headers)

    assert seen == [("billing", '{"v":1,"user_id":"user-1"}')]
    assert headers == {"team": "billing"}


@pytest.mark.parametrize(
    ("second", "expected"), [("user-1", {"user_id": "user-1"}), ("user-2", {})]
)
async def test_a_batch_has_an_identity_only_if_all_of_it_has(
    second: str, expected: dict[str, str], options: dict[str, Any], redis_url: str
) -> None:
    """The user of the first message is not taken for that of the others."""
    broker = RedisBroker(
        redis_url, middlewares=[AmplitudeMessageMiddleware(carry=True)]
    )
    seen: asyncio.Queue[tuple[list[str], Any]] = asyncio.Queue()

    @broker.subscriber(list=ListSub("batch", batch=True))
    async def look(names: list[str]) -> None:
        seen.put_nowait((names, bindings()))

    await broker.connect()
    for user in ("user-1", second):
        with bound(user_id=user):
            await broker.publish(user, list="batch")
    app = FastStream(broker, lifespan=amplitude_lifespan(**options))
    async with app.lifespan_context(), app:
        found = await asyncio.wait_for(seen.get(), 10)

    assert found == (["user-1", second], expected)


async def test_a_message_that_fails_ends_its_scope(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """Failed, cancelled, timed out: the scope ends and the client lives."""
    broker = broker_with()
    started = asyncio.Event()
    limits: list[asyncio.Timeout] = []

    @broker.subscriber("fail")
    async def fail(user: str, amplitude: AmplitudeDep) -> None:
        assert bindings() == {}
        bind(user_id=user)
        await amplitude.track("Failed")
        raise LookupError

    @broker.subscriber("hang")
    async def hang(user: str, amplitude: AmplitudeDep) -> None:
        bind(user_id=user)
        await amplitude.track("Hung")
        started.set()
        for limit in limits:
            limit.reschedule(0)
        await asyncio.Event().wait()

    async def publish_in_time(user: str) -> None:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await broker.publish(user, "hang")

    async with running(broker, **options):
        for user in ("user-1", "user-2"):
            with pytest.raises(LookupError):
                await broker.publish(user, "fail")
            assert bindings() == {}
        with pytest.raises(TimeoutError):
            await publish_in_time("user-3")
        assert bindings() == {}
        started.clear()
        limits.clear()
        task = asyncio.create_task(broker.publish("user-4", "hang"))
        await started.wait()
        task.cancel()
        await asyncio.wait([task])

    assert sorted(map(str, users(emulator))) == [f"user-{n}" for n in range(1, 5)]


@pytest.mark.parametrize(("flush_each", "arrived"), [(False, 0), (True, 2)])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_message_waits_for_its_events_only_if_asked(
    *, flush_each: bool, arrived: int, fails: bool, emulator: Emulator, options: Any
) -> None:
    """Nothing is flushed per message, unless with ``flush_each``."""
    broker = broker_with(flush_each=flush_each)

    @broker.subscriber("welcome")
    async def welcome(_: str, amplitude: AmplitudeDep) -> None:
        # The first batch of a client goes at once, so it is not this one.
        await (await amplitude.track("First", user_id="user-1"))
        emulator.reset()
        await amplitude.track("Second", user_id="user-1")
        await amplitude.track("Third", user_id="user-1")
        if fails:
            raise LookupError

    async with running(broker, flush_interval=600.0, **options):
        try:
            await broker.publish("go", "welcome")
        except LookupError:
            assert fails
        seen = len(emulator.events)

    assert seen == arrived


@pytest.mark.long
@pytest.mark.parametrize("_", range(3))
async def test_a_thousand_messages_have_their_own_identities(
    _: int, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Interleaved messages, their child tasks and threads never cross."""
    broker = broker_with(carry=["user_id"])
    jobs_at_once = Interleaved(MESSAGES)

    @broker.subscriber("work")
    async def work(job: int, amplitude: AmplitudeDep) -> None:
        await jobs_at_once.work(amplitude, job)

    async def send(job: int) -> None:
        with bound(user_id=f"user-{job}"):
            await broker.publish(job, "work")

    async with running(broker, **options):
        await asyncio.gather(*map(send, range(MESSAGES)))

    jobs_at_once.check(emulator)


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "faststream", "run", "examples.faststream_worker:app"),
        ("examples/faststream_worker.py",),
    ],
    ids=["its command line", "alone"],
)
async def test_the_example_delivers_before_it_stops(
    command: tuple[str, ...],
    redis_url: str,
    emulator: Emulator,
    start_worker: Callable[..., Any],
) -> None:
    """SIGTERM ends the example, and every event has the user of its message."""
    async with start_worker(*command, REDIS_URL=redis_url) as worker:
        middleware = AmplitudeMessageMiddleware(carry=["user_id"])
        async with RedisBroker(redis_url, middlewares=[middleware]) as sender:
            for job in range(50):
                with bound(user_id=f"user-{job}"):
                    await sender.publish(f"l-{job}", list="welcome")
        await worker.wrote("welcomed in", 50)
        code = await worker.stop()

    assert code == 0, worker.log
    assert {
        event["event_properties"]["language"]: event["user_id"]
        for event in emulator.events
    } == {f"l-{job}": f"user-{job}" for job in range(50)}
