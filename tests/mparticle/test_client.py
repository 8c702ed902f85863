"""The mParticle client over real sockets: requests, the queue, its life."""

import asyncio
import base64
import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from amplitude_async import (
    AmplitudeError,
    ClientClosedError,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
    QueueFullError,
    __version__,
)
from amplitude_async.delivery.endpoint import Response
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.mparticle import (
    AuthError,
    BadRequestError,
    Batch,
    BatchError,
    CustomEvent,
    GenericEvent,
    MParticle,
    MParticleError,
    PayloadTooLargeError,
    ScreenViewEvent,
    TransportError,
)
from amplitude_async.storage import SQLiteStorage

__all__: list[str] = []

Connect = Callable[..., MParticle]
Make = Callable[..., Batch]

OLD = datetime.now(UTC) - timedelta(days=400)
LARGE = "x" * 4_000
KEY, SECRET = "key-of-the-tests", "s\u00e9cret-of-the-tests"


def events(count: int, **fields: Any) -> list[CustomEvent]:
    """Return numbered events."""
    return [CustomEvent(event_name=f"e{number}", **fields) for number in range(count)]


def large_events(count: int) -> list[CustomEvent]:
    """Return events of 20 kB."""
    attributes = {f"a{number}": LARGE for number in range(5)}
    return events(count, custom_attributes=attributes)


# Direct uploads --------------------------------------------------------------


async def test_upload_posts_one_batch(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """One POST to /events with a JSON object, under Basic authentication."""
    async with connect(headers={"X-Trace": "t", "authorization": "none"}) as client:
        result = await client.upload(make_batch())

    (request,) = emulator.requests
    token = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
    assert (request.path, request.status) == ("/v2/events", 202)
    assert request.headers["Authorization"] == f"Basic {token}"
    assert request.headers["User-Agent"] == f"amplitude-async/{__version__}"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["X-Trace"] == "t"
    assert "Content-Encoding" not in request.headers
    assert (result.ok, result.status, result.attempts) == (True, 202, 1)
    (batch,) = emulator.batches
    assert result.source_request_ids == (batch["source_request_id"],)
    data = batch["events"][0]["data"]
    assert data["source_message_id"]
    assert data["timestamp_unixtime_ms"] > 1_600_000_000_000
    assert "environment" in batch
    assert not {"schema_version", "batch_id", "timestamp_unixtime_ms"} & batch.keys()


async def test_upload_many_posts_a_list(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """One POST to /bulkevents with the batches in order."""
    async with connect() as client:
        results = await client.upload_many(map(make_batch, "ab"))

    (request,) = emulator.requests
    users = [one["user_identities"]["customer_id"] for one in request.batches]
    assert request.path == "/v2/bulkevents"
    assert users == ["a", "b"]
    assert [result.status for result in results] == [202]


async def test_nothing_to_upload(connect: Connect, emulator: Emulator) -> None:
    """An empty list sends nothing and brings no results."""
    async with connect() as client:
        assert await client.upload_many([]) == []
        assert await client.upload_historical([]) == []
    assert emulator.requests == []


async def test_historical_events(
    connect: Connect,
    emulator: Emulator,
    make_batch: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They go to their own path, and their age is no reason for a warning."""
    generic = GenericEvent(
        event_type="x", data={"timestamp_unixtime_ms": int(OLD.timestamp() * 1000)}
    )
    old = [*events(1, timestamp_unixtime_ms=OLD), generic]
    async with connect() as client:
        (result,) = await client.upload_historical([make_batch(events=old)])

    assert emulator.requests[0].path == "/v2/bulkevents/historical"
    assert result.ok
    assert emulator.stats.historical_dropped == 0
    assert "older than 30 days" not in caplog.text


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "batch 1 has no events"),
        (events(1), "event 0 of batch 1 has no timestamp_unixtime_ms"),
        (
            events(1, timestamp_unixtime_ms=datetime.now(UTC) - timedelta(hours=71)),
            "younger than 72 hours",
        ),
        ([GenericEvent(event_type="x", data={})], "has no timestamp_unixtime_ms"),
    ],
)
async def test_what_the_historical_endpoint_would_throw_away(
    connect: Connect,
    emulator: Emulator,
    make_batch: Make,
    given: list[Any],
    problem: str,
) -> None:
    """Its three rules are checked here: the server would say nothing."""
    good = make_batch(events=events(1, timestamp_unixtime_ms=OLD))
    async with connect() as client:
        with pytest.raises(BatchError, match=problem):
            await client.upload_historical([good, make_batch(events=given)])
    assert emulator.requests == []


async def test_old_events_on_the_normal_endpoint(
    connect: Connect, make_batch: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """They are sent, with a warning that names the better way, once a minute."""
    batch = make_batch(events=events(2, timestamp_unixtime_ms=OLD))
    async with connect() as client:
        await client.upload(batch)
        await client.upload(batch)

    assert caplog.text.count("older than 30 days: use upload_historical") == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthError), (403, AuthError), (413, PayloadTooLargeError)],
)
async def test_refusals_raise(
    connect: Connect,
    emulator: Emulator,
    make_batch: Make,
    status: int,
    kind: type[MParticleError],
) -> None:
    """One request, and an error that carries the result."""
    emulator.faults.add(Fault(status, count=None))
    async with connect() as client:
        with pytest.raises(kind) as raised:
            await client.upload(make_batch())

    assert raised.value.result is not None
    assert raised.value.result.status == status
    assert emulator.stats.requests == 1
    assert KEY not in str(raised.value)


async def test_wrong_credentials(make_batch: Make) -> None:
    """What the emulator says to a wrong secret is an AuthError without it."""
    async with Emulator(mparticle_keys={"key": "right"}) as emulator:
        url = emulator.mparticle_url
        async with MParticle("key", "wrong", base_url=url, trust_env=False) as client:
            with pytest.raises(AuthError, match="403") as raised:
                await client.upload(make_batch())
    assert "wrong" not in repr(raised.value).replace("secret is wrong", "")


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        (
            {"errors": [{"code": "BAD_REQUEST", "message": "required property"}]},
            [("BAD_REQUEST", "required property")],
        ),
        ("<html>no</html>", []),
        ("", []),
        (b'{"errors": [', []),
    ],
)
async def test_a_bad_request_tells_why(
    connect: Connect, emulator: Emulator, make_batch: Make, body: Any, errors: list[Any]
) -> None:
    """Errors are read where they can be; the text and the status are kept anyway."""
    emulator.faults.add(Fault(400, body=body))
    async with connect() as client:
        with pytest.raises(BadRequestError, match="HTTP 400") as raised:
            await client.upload(make_batch())

    result = raised.value.result
    assert result is not None
    assert [(one.code, one.message) for one in result.errors] == errors
    assert result.status == 400
    if body == "<html>no</html>":
        assert body in result.message


async def test_a_server_that_never_answers(
    connect: Connect, recorder: Any, make_batch: Make
) -> None:
    """The time of a request is bounded without being asked."""
    assert MParticle("key", "secret").config.connection_timeout == 10.0
    recorder.hold = asyncio.Event()
    options = {"connection_timeout": 0.03, "flush_max_retries": 1}
    async with connect(base_url=recorder.url, **options) as client:
        with pytest.raises(TransportError, match=r"within connection_timeout=0\.03 s"):
            await client.upload(make_batch())
    assert len(recorder.requests) == 2


async def test_nobody_listens(connect: Connect, make_batch: Make) -> None:
    """A refused connection is an error after the retries."""
    options = {"base_url": "http://127.0.0.1:9", "flush_max_retries": 1}
    async with connect(**options) as client:
        with pytest.raises(TransportError, match="after 2 requests"):
            await client.upload(make_batch())


async def test_a_redirect_is_not_followed(
    connect: Connect, emulator: Emulator, recorder: Any, make_batch: Make
) -> None:
    """No credentials go to where an answer points."""
    recorder.status = 307
    recorder.headers = {"Location": emulator.mparticle_url + "/events"}
    options = {"base_url": recorder.url, "flush_max_retries": 0}
    async with connect(**options) as client:
        with pytest.raises(BadRequestError, match="307"):
            await client.upload(make_batch())
        result = await (await client.send(make_batch()))

    assert result.status is DeliveryStatus.DROPPED
    assert emulator.requests == []
    assert len(recorder.requests) == 2


async def test_sessions(connect: Connect, make_batch: Make) -> None:
    """A session that was brought along stays open, an own one is closed."""
    async with aiohttp.ClientSession() as session:
        async with connect(session=session) as client:
            assert (await client.upload(make_batch())).ok
        assert not session.closed


async def test_shutdown_leaves_no_session_behind(
    connect: Connect, recorder: Any, make_batch: Make
) -> None:
    """An upload that is cut off ends as an error and does not connect again."""
    recorder.hold = asyncio.Event()
    client = connect(base_url=recorder.url)
    task = asyncio.ensure_future(client.upload(make_batch()))
    await recorder.arrived.wait()
    await client.shutdown(0.02)

    with pytest.raises(TransportError):
        await task
    assert len(recorder.requests) == 1
    with pytest.raises(ClientClosedError):
        await client.upload(make_batch())
    with pytest.raises(ClientClosedError):
        await client.upload_many([])


async def test_a_data_plan_of_the_client(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """It is in every batch that has none of its own; no version, no key."""
    context = {"location": {"city_name": "Rome"}}
    async with connect(data_plan={"plan_id": "web"}) as client:
        await client.upload(make_batch(context=context))
        await client.upload(make_batch(context={"data_plan": {"plan_id": "mine"}}))

    first, second = emulator.batches
    assert first["context"] == {"data_plan": {"plan_id": "web"}, **context}
    assert second["context"] == {"data_plan": {"plan_id": "mine"}}


# Limits ----------------------------------------------------------------------


async def test_a_batch_that_is_too_large_is_split(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Its events are spread over batches with ids of their own, in order."""
    batch = make_batch(events=large_events(20))
    async with connect() as client:
        with pytest.raises(BatchError, match="larger than 128000 bytes"):
            await client.upload(batch)
        results = await client.upload_many([batch])

    names = [one["data"]["event_name"] for b in emulator.batches for one in b["events"]]
    assert names == [f"e{number}" for number in range(20)]
    assert len(emulator.batches) > 1
    assert all(result.ok for result in results)
    assert max(len(json.dumps(one)) for one in emulator.batches) < 135_000
    assert all(request.body_bytes <= 256_000 for request in emulator.requests)
    ids = [one["source_request_id"] for one in emulator.batches]
    assert len(set(ids)) == len(ids)


async def test_an_event_that_is_too_large(connect: Connect, make_batch: Make) -> None:
    """It cannot be split: the error names it."""
    huge = events(1, custom_attributes={f"a{n}": LARGE for n in range(40)})
    async with connect() as client:
        with pytest.raises(BatchError, match=r"event 0 has 16\d{4} bytes"):
            await client.upload(make_batch(events=huge))
        result = await (await client.send(make_batch(events=huge)))
        assert result.status is DeliveryStatus.REJECTED


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"user_attributes": {f"a{n}": 1 for n in range(101)}}, "has 101 attributes"),
        ({"user_attributes": {"a": ["x"] * 1001}}, "has 1001 entries"),
        ({"user_attributes": {"a": ["x" * 513]}}, "has 513 characters"),
        ({"user_attributes": {"a": "x" * 4097}}, "has 4097 characters"),
        ({"events": events(1, custom_attributes={"a": "x" * 4097})}, "has 4097"),
        ({"events": [ScreenViewEvent(screen_name="x" * 257)]}, "has 257 characters"),
    ],
)
async def test_documented_limits(
    connect: Connect,
    emulator: Emulator,
    make_batch: Make,
    fields: dict[str, Any],
    problem: str,
) -> None:
    """Beyond them the server cuts, or fails the whole request: ours says so first."""
    batch = make_batch(**fields)
    async with connect() as client:
        with pytest.raises(BatchError, match=problem):
            await client.upload(batch)
        result = await (await client.send(batch))
    assert result.status is DeliveryStatus.REJECTED
    assert problem in result.message
    assert emulator.requests == []

    async with connect(limits="off") as client:
        assert (await client.upload(batch)).ok


async def test_names_are_cut_on_request(
    connect: Connect,
    emulator: Emulator,
    make_batch: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Truncating cuts names as the server would; the rest is sent with a warning."""
    given = [CustomEvent(event_name="x" * 300)]
    attributes = {"a": "x" * 4097}
    async with connect(limits="truncate") as client:
        await client.upload(make_batch(events=given, user_attributes=attributes))

    (batch,) = emulator.batches
    assert batch["events"][0]["data"]["event_name"] == "x" * 256
    assert batch["user_attributes"] == attributes
    assert "has 4097 characters" in caplog.text
    assert given[0].event_name == "x" * 300


async def test_a_batch_about_nobody(
    connect: Connect,
    emulator: Emulator,
    make_batch: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It reaches no profile: a warning, or an error where the client is strict."""
    async with connect() as client:
        await client.upload(make_batch(user_identities=None))
        assert caplog.text.count("names no user and no device") == 1
        device = {"roku_publisher_id": "0b0a9c8e-1111-4222-8333-944445555666"}
        await client.upload(make_batch(user_identities=None, device_info=device))
    assert emulator.stats.batches_ingested == 2

    async with connect(strict=True) as client:
        with pytest.raises(BatchError, match="names no user"):
            await client.upload(make_batch(user_identities=None))
        with pytest.raises(BatchError, match="names no user"):
            await client.send(make_batch(user_identities=None))


async def test_what_was_put_into_a_batch_unchecked(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """A list cannot be watched: what is no event or has no JSON form is rejected."""
    no_event = make_batch()
    no_event.events.append({"event_name": "x" * 500})  # type: ignore[arg-type]
    no_json = make_batch(user_attributes={"a": 1})
    assert no_json.user_attributes is not None
    no_json.user_attributes["b"] = object()
    no_name = make_batch(user_attributes={"a": 1})
    assert no_name.user_attributes is not None
    no_name.user_attributes[5] = 1  # type: ignore[index]
    async with connect() as client:
        for batch in (no_event, no_json, no_name):
            with pytest.raises(BatchError):
                await client.upload(batch)
            result = await (await client.send(batch))
            assert result.status is DeliveryStatus.REJECTED
            assert len(result.message) < 400
    assert emulator.requests == []


async def test_a_dict_is_no_batch(connect: Connect) -> None:
    """A wrong kind of argument is the caller's mistake, and is not repeated."""
    wrong: Any = {"api_key": "hush"}
    async with connect() as client:
        for verb in (client.upload, client.send):
            with pytest.raises(TypeError, match="batch is a dict") as raised:
                await verb(wrong)
            assert "hush" not in str(raised.value)
        for many in (client.upload_many, client.upload_historical):
            with pytest.raises(TypeError, match="must be a Batch"):
                await many([wrong])


# The queue -------------------------------------------------------------------


async def test_send_delivers_in_bulk(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Queued batches share requests of at most 100, and each has a result."""
    results: list[DeliveryResult] = []
    async with connect(callback=results.append, flush_interval=5) as client:
        deliveries = [await client.send(make_batch(f"c-{n}")) for n in range(250)]
        stats = await client.flush()
        assert stats.delivered == 250

    assert {request.path for request in emulator.requests} == {"/v2/bulkevents"}
    assert all(len(request.batches) <= 100 for request in emulator.requests)
    assert emulator.stats.batches_ingested == 250
    assert all(one.result is not None and one.result.ok for one in deliveries)
    assert sorted(r.insert_id for r in results) == sorted(
        d.insert_id for d in deliveries
    )
    sent = {batch["source_request_id"] for batch in emulator.batches}
    assert sent == {delivery.insert_id for delivery in deliveries}


async def test_the_result_of_a_batch(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Awaiting its handle gives the batch back, as it was sent."""
    emulator.faults.add(Fault(500))
    async with connect() as client:
        result = await (await client.send(make_batch("c-9")))

    assert (result.status, result.code) == (DeliveryStatus.DELIVERED, 202)
    assert (result.attempts, result.destination) == (2, "mparticle")
    assert isinstance(result.event, Batch)
    assert result.event.user_identities is not None
    assert result.event.user_identities.customer_id == "c-9"
    assert result.event.source_request_id == result.insert_id


async def test_a_large_batch_in_the_queue(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Its parts are accounted for one by one; the handle waits for all of them."""
    async with connect() as client:
        delivery = await client.send(make_batch(events=large_events(20)))
        result = await delivery
        stats = client.stats

    parts = len(emulator.batches)
    assert parts > 1
    assert result.ok
    assert delivery.done
    assert delivery.insert_id == emulator.batches[0]["source_request_id"]
    assert stats.accepted == stats.delivered == parts


async def test_one_bad_part_of_a_large_batch(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """The handle tells the bad result, though the rest is delivered."""
    emulator.faults.add(
        Fault(400, count=None, when=lambda request: "'e19'" in repr(request.batches))
    )
    async with connect() as client:
        delivery = await client.send(make_batch(events=large_events(20)))
        result = await delivery
        stats = await client.flush()

    assert (result.status, result.code) == (DeliveryStatus.REJECTED, 400)
    assert stats.rejected == 1
    assert stats.delivered == stats.accepted - 1 > 0


async def test_half_of_a_large_batch_finds_room(
    connect: Connect, make_batch: Make
) -> None:
    """Once a part is accepted the verb does not raise: the rest is shed."""
    options = {"max_storage_capacity": 1, "overflow": "raise", "flush_interval": 60}
    async with connect(**options) as client:
        delivery = await client.send(make_batch(events=large_events(20)))
        result = await delivery
        assert (result.status, result.reason) == (
            DeliveryStatus.DROPPED,
            DropReason.OVERFLOW,
        )


async def test_no_room(connect: Connect, make_batch: Make) -> None:
    """A full queue raises where that is the policy, and accepts nothing then."""
    options = {"max_storage_capacity": 1, "overflow": "raise", "flush_interval": 60}
    async with connect(**options) as client:
        await client.send(make_batch())
        with pytest.raises(QueueFullError):
            await client.send(make_batch())
        assert client.stats.accepted == 1


async def test_retries_in_the_queue_are_equal(
    virtual: Callable[..., Any], make_batch: Make
) -> None:
    """The ids and times of a batch are made once, before the first attempt."""
    client = virtual(Response(503), Response(0, error="reset"))
    delivery = await client.send(make_batch())
    for _ in range(9):
        await client.fake.advance(1.0)

    assert delivery.result.ok
    assert len(client.bodies) == 3
    assert len(set(client.bodies)) == 1


async def test_the_queue_respects_a_rate_limit(
    virtual: Callable[..., Any], make_batch: Make
) -> None:
    """A 429 in the queue is waited for, the same batches go again, nothing is lost."""
    client = virtual(Response(429, headers={"retry-after": "7"}))
    for number in range(5):
        await client.send(make_batch(str(number)))
    await client.fake.advance(6.0)
    assert len(client.times) == 1
    await client.fake.advance(60.0)

    assert client.times[1] - client.times[0] >= 7.0
    assert client.bodies[1] == client.bodies[0]
    assert client.stats.delivered == 5


async def test_a_local_limit_counts_batches(
    virtual: Callable[..., Any], make_batch: Make
) -> None:
    """Ten a second are ten batches a second, however many share a request."""
    client = virtual(max_events_per_second=10.0)
    for number in range(30):
        await client.send(make_batch(str(number)))
    await client.fake.advance(0.5)
    early = client.stats.delivered
    await client.fake.advance(60.0)

    assert early <= 15
    assert client.stats.delivered == 30
    assert client.times[-1] >= 1.9


async def test_a_bad_batch_in_the_queue(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """A 400 is bisected until the batch at fault stands alone."""
    emulator.faults.add(
        Fault(400, count=None, when=lambda request: "'bad'" in repr(request.batches))
    )
    results: list[DeliveryResult] = []
    users = [*map(str, range(10)), "bad", *map(str, range(10, 20))]
    async with connect(callback=results.append, flush_interval=5) as client:
        for user in users:
            await client.send(make_batch(user))
        stats = await client.flush()

    assert (stats.delivered, stats.rejected) == (20, 1)
    (failed,) = [result for result in results if not result.ok]
    assert failed.event.user_identities.customer_id == "bad"
    assert (failed.code, failed.status) == (400, DeliveryStatus.REJECTED)
    assert failed.attempts >= 1


async def test_what_is_too_large_for_the_server(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """A 413 halves the request; nothing is lost."""
    emulator.faults.add(Fault.too_large(3))
    async with connect(flush_interval=5) as client:
        for number in range(20):
            await client.send(make_batch(str(number)))
        stats = await client.flush()

    assert stats.delivered == 20
    assert emulator.stats.batches_ingested == 20


async def test_a_refused_key_in_the_queue(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """A 403 settles what waits with that code; nothing is hammered."""
    emulator.faults.add(Fault(403, count=None))
    async with connect() as client:
        results = [await (await client.send(make_batch(name))) for name in "abc"]

    assert {result.code for result in results} == {403}
    assert {result.status for result in results} == {DeliveryStatus.REJECTED}
    assert emulator.stats.requests == 1


async def test_a_raising_callback(connect: Connect, make_batch: Make) -> None:
    """It is told batch, verdict and attempts; its own fault hurts nobody."""
    seen: list[tuple[str | None, int, str, int]] = []

    def complain(result: DeliveryResult) -> None:
        identities = result.event.user_identities
        seen.append(
            (identities.customer_id, result.code, result.message, result.attempts)
        )
        raise RuntimeError

    async with connect(callback=complain) as client:
        await client.send(make_batch("a"))
        await client.send(make_batch("b"))
        stats = await client.flush()

    assert stats.delivered == 2
    assert sorted(one[0] or "" for one in seen) == ["a", "b"]
    assert {one[1:] for one in seen} == {(202, "queued by mParticle", 1)}


async def test_opting_out(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Nothing is sent on either road, and the account says so."""
    async with connect(opt_out=True) as client:
        direct = await client.upload(make_batch())
        many = await client.upload_many([make_batch()])
        none = await client.upload_many([])
        queued = await (await client.send(make_batch()))
        client.opt_out = False
        assert (await client.upload(make_batch())).ok

    assert not direct.ok
    assert (direct.attempts, direct.message) == (0, "opt_out is set")
    assert (len(many), none) == (1, [])
    assert queued.reason is DropReason.OPT_OUT
    assert emulator.stats.requests == 1


async def test_shutdown_drains_the_queue(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Leaving the client sends what waits; afterwards a batch is DROPPED closed."""
    async with connect(flush_interval=60) as client:
        for name in "abc":
            await client.send(make_batch(name))
    late = await (await client.send(make_batch()))

    assert emulator.stats.batches_ingested == 3
    assert late.reason is DropReason.CLOSED
    assert client.stats.pending == 0


async def test_nothing_is_lost_in_silence(connect: Connect, make_batch: Make) -> None:
    """What a dead server did not take by the deadline is counted and told."""
    results: list[DeliveryResult] = []
    client = connect(
        base_url="http://127.0.0.1:9",
        callback=results.append,
        retry_base_interval=60.0,
        retry_max_interval=60.0,
    )
    for name in "abc":
        await client.send(make_batch(name))
    stats = await client.shutdown(0.05)

    assert stats.dropped_by_reason == {DropReason.SHUTDOWN: 3}
    assert [result.reason for result in results] == [DropReason.SHUTDOWN] * 3


async def test_a_durable_queue(
    emulator: Emulator, make_batch: Make, tmp_path: Path
) -> None:
    """Batches that one client could not deliver are delivered by the next."""

    def client(base_url: str) -> MParticle:
        return MParticle(
            "key",
            "secret",
            base_url=base_url,
            trust_env=False,
            storage=SQLiteStorage(tmp_path),
        )

    emulator.faults.add(Fault(503, count=None))
    first = client(emulator.mparticle_url)
    delivery = await first.send(make_batch())
    stats = await first.shutdown(0.05)
    assert stats.stored == 1
    assert delivery.result is not None
    assert delivery.result.status is DeliveryStatus.STORED

    emulator.faults.clear()
    async with client(emulator.mparticle_url) as second:
        stats = await second.flush()
    assert (stats.recovered, stats.delivered) == (1, 1)
    assert emulator.batches[0]["source_request_id"] == delivery.insert_id


async def test_plugins_of_the_queue(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """They see each batch; what they make of it is encoded and checked again."""

    def mark(batch: Batch) -> Batch | None:
        if batch.user_identities is None:
            return None
        plan = {"plan_id": "p"}
        return batch.model_copy(
            update={
                "user_attributes": {"seen": True},
                "context": {"data_plan": plan} if batch.mpid is None else object(),
            }
        )

    async with connect() as client:
        await client.add(mark)
        assert (await (await client.send(make_batch()))).ok
        none = await (await client.send(make_batch(user_identities=None, mpid=1)))
        bad = await (await client.send(make_batch(mpid=1)))

    assert emulator.batches[0]["user_attributes"] == {"seen": True}
    assert none.reason is DropReason.PLUGIN
    assert bad.status is DeliveryStatus.REJECTED
    assert "cannot be sent" in bad.message


async def test_plugins_get_whole_batches_only(
    connect: Connect, make_batch: Make
) -> None:
    """What was put in unchecked cannot be read back for them, and is rejected."""
    unchecked = CustomEvent.model_construct(event_name="", custom_event_type="other")
    async with connect() as client:
        await client.add(lambda batch: batch)
        result = await (await client.send(make_batch(events=[unchecked])))

    assert result.status is DeliveryStatus.REJECTED
    assert "event_name" in result.message
    assert isinstance(result.event, Batch)


async def test_a_plugin_that_makes_a_batch_too_large(
    connect: Connect, make_batch: Make
) -> None:
    """It was small when it was split: now it can only be rejected."""

    def grow(batch: Batch) -> Batch:
        return batch.model_copy(update={"user_attributes": {"a": "x" * 200_000}})

    async with connect() as client:
        await client.add(grow)
        result = await (await client.send(make_batch()))

    assert result.status is DeliveryStatus.REJECTED
    assert "mParticle takes at most 128000" in result.message


async def test_batches_of_one_user_keep_their_order(
    connect: Connect, emulator: Emulator, make_batch: Make
) -> None:
    """Whatever identifies a user or device, the server sees it in order."""
    uuid = "0b0a9c8e-1111-4222-8333-944445555666"
    who: list[dict[str, Any]] = [
        {"mpid": 7},
        {"user_identities": {"email": "a@example.org"}},
        {"user_identities": None, "mp_deviceid": uuid},
        {"user_identities": None, "device_info": {"ios_idfv": uuid}},
        {"user_identities": None, "partner_identities": {"p": "x"}},
    ]
    emulator.faults.add(Fault(500, count=3))
    async with connect(max_batch_size=2, flush_queue_size=1) as client:
        for number in range(4):
            for identity in who:
                attributes = {"n": number}
                await client.send(make_batch(**identity, user_attributes=attributes))
        await client.flush()

    for identity in who:
        key, value = list(identity.items())[-1]
        seen = [
            b["user_attributes"]["n"] for b in emulator.batches if b.get(key) == value
        ]
        assert seen == [0, 1, 2, 3], identity


# Loops, processes, the host --------------------------------------------------


@pytest.mark.allow_blocking
def test_a_second_event_loop(make_batch: Make) -> None:
    """After asyncio.run the same client goes on in the next one."""
    client = MParticle(
        "key",
        "secret",
        base_url="http://127.0.0.1:9",
        trust_env=False,
        flush_max_retries=1,
        retry_base_interval=0.001,
        flush_interval=60,
    )

    async def first() -> None:
        uploads = [client.upload(make_batch(name)) for name in "abc"]
        await asyncio.gather(*uploads, return_exceptions=True)
        await client.send(make_batch("waiting"))

    async def second() -> None:
        async with Emulator() as emulator:
            assert client.stats.pending == 1
            with pytest.raises(TransportError):
                await client.upload(make_batch())
            stats = await client.shutdown(0.2)
            assert stats.balanced
            assert emulator.requests == []

    asyncio.run(first())
    asyncio.run(second())


@pytest.mark.allow_blocking
def test_two_loops_at_once(make_batch: Make) -> None:
    """A client belongs to one loop: another living one is an error."""
    client = MParticle("key", "secret", base_url="http://127.0.0.1:9", opt_out=True)

    async def use() -> None:
        await client.upload(make_batch())

    with asyncio.Runner() as one, asyncio.Runner() as two:
        one.run(use())
        with pytest.raises(AmplitudeError, match="another event loop"):
            two.run(use())
        one.run(client.shutdown())


@pytest.mark.allow_blocking
def test_a_forked_child_starts_empty(make_batch: Make) -> None:
    """It has an account and a network of its own, and sends nothing of its parent's."""

    async def run() -> int:
        async with Emulator() as emulator:
            url = emulator.mparticle_url
            client = MParticle(
                "key", "secret", base_url=url, trust_env=False, flush_interval=60
            )
            await client.send(make_batch("parent"))
            read, write = os.pipe()
            child = os.fork()
            if not child:  # pragma: no cover - counted where coverage follows forks
                code = 1
                try:
                    code = asyncio.run(in_child(client))
                finally:
                    os.write(write, bytes([code]))
                    os._exit(0)
            os.close(write)
            loop = asyncio.get_running_loop()
            code = (await loop.run_in_executor(None, os.read, read, 1))[0]
            os.close(read)
            await loop.run_in_executor(None, os.waitpid, child, 0)
            await client.shutdown()
            users = [b["user_identities"]["customer_id"] for b in emulator.batches]
            assert sorted(users) == ["child", "direct", "parent"]
            return code

    async def in_child(client: MParticle) -> int:
        assert (await client.upload(make_batch("direct"))).ok
        assert client.stats.accepted == 0
        assert (await (await client.send(make_batch("child")))).ok
        stats = await client.shutdown()
        return 0 if stats.balanced and stats.accepted == 1 else 2

    assert asyncio.run(run()) == 0


def test_importing_it_changes_nothing() -> None:
    """The package adds no handler to any logger."""
    for name in ("amplitude_async", "mparticle", None):
        handlers = [type(one).__module__ for one in logging.getLogger(name).handlers]
        assert not [one for one in handlers if one.startswith("amplitude_async")]
