"""The mParticle side of the emulator over real sockets."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

DAY = 86400.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client session with credentials."""
    timeout = aiohttp.ClientTimeout(total=5)
    auth = basic("key:top-secret")
    headers = {"Authorization": auth}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as opened:
        yield opened


def basic(pair: str) -> str:
    """Return the header value of these credentials."""
    return "Basic " + base64.b64encode(pair.encode()).decode()


def batch(request_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a good batch."""
    made = {"environment": "development", "events": [], **fields}
    return made if request_id is None else {**made, "source_request_id": request_id}


class Reply:
    """Status, headers and body of an answer."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def error(self) -> Any:
        """The first of the errors in the body."""
        return json.loads(self.body)["errors"][0]


async def post(
    session: aiohttp.ClientSession, url: str, payload: object, **headers: str
) -> Reply:
    """Send JSON values, or bytes as they are."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    # As a file: aiohttp warns of large bodies given as bytes.
    # aiohttp 3.11 gives a connection up when the answer overtakes a file.
    stream = data if len(data) < 1_000_000 else io.BytesIO(data)
    async with session.post(url, data=stream, headers=headers) as response:
        return Reply(response, await response.read())


async def test_batches_arrive_at_all_endpoints(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Single, bulk and historical requests are stored in order, answered empty."""
    url = emulator.mparticle_url
    assert url == emulator.url + "/v2"
    old = {"event_type": "first_run", "data": {"timestamp_unixtime_ms": 1}}
    sent = [batch(mpid=1), batch(mpid=2), batch(mpid=3), batch(mpid=4, events=[old])]
    reply = await post(session, f"{url}/events", sent[0])
    assert (reply.status, reply.body) == (202, b"")
    assert "Content-Type" not in reply.headers
    assert (await post(session, f"{url}/bulkevents", sent[1:3])).status == 202
    reply = await post(session, f"{url}/bulkevents/historical", sent[3:])
    assert reply.status == 202
    assert emulator.batches == sent
    assert emulator.events == []
    assert [one.batches for one in emulator.requests] == [
        tuple(sent[:1]),
        tuple(sent[1:3]),
        tuple(sent[3:]),
    ]
    assert all(one.api_key_ok and not one.events for one in emulator.requests)
    assert "batches=4" in repr(emulator)
    assert "top-secret" not in repr(emulator.requests) + repr(emulator)


async def test_counters_tell_batches_from_events(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Batches and events have counters of their own, and a reset clears both."""
    event = {"event_type": "click", "user_id": "user-1"}
    await post(session, emulator.httpapi_url, {"api_key": "k", "events": [event]})
    bulk = emulator.mparticle_url + "/bulkevents"
    await post(session, bulk, [batch("r1"), batch("r2"), batch("r1")])
    await post(session, bulk, [batch("r3"), {}])
    await post(session, bulk + "/historical", [batch("r4"), batch("r5")])
    stats = emulator.stats
    assert (stats.events_received, stats.events_ingested, stats.duplicates) == (1, 1, 0)
    assert (stats.batches_received, stats.batches_ingested) == (7, 2)
    assert (stats.batch_duplicates, stats.historical_dropped) == (1, 2)
    assert stats.by_status == {200: 1, 202: 2, 400: 1}
    emulator.reset()
    assert (emulator.batches, emulator.stats.batches_received) == ([], 0)


async def test_duplicates_are_ignored_per_key_for_thirty_days() -> None:
    """A copy with the same key and id answers 202 and is stored once."""
    clock = Clock()
    async with Emulator(clock=clock) as emulator, aiohttp.ClientSession() as session:
        for key, wait in (("a", 0), ("a", 29 * DAY), ("b", 0), ("a", 2 * DAY)):
            clock.now += wait
            auth = basic(f"{key}:s")
            url = emulator.mparticle_url + "/events"
            reply = await post(session, url, batch("r1"), Authorization=auth)
            assert reply.status == 202
        assert len(emulator.batches) == 3
        assert emulator.stats.batch_duplicates == 1


async def test_credentials_are_checked() -> None:
    """No credentials are 401, unknown ones 403, and nothing is stored."""
    keys = {"key": "top-secret"}
    async with (
        Emulator(mparticle_keys=keys) as emulator,
        aiohttp.ClientSession() as session,
    ):
        url = emulator.mparticle_url + "/events"
        reply = await post(session, url, batch())
        assert (reply.status, reply.error["code"]) == (401, "UNAUTHORIZED")
        wrong = basic("key:wrong")
        reply = await post(session, url, batch(), Authorization=wrong)
        assert (reply.status, reply.error["code"]) == (403, "FORBIDDEN")
        assert not any(one.api_key_ok for one in emulator.requests)
        right = basic("key:top-secret")
        reply = await post(session, url, batch(), Authorization=right)
        assert (reply.status, len(emulator.batches)) == (202, 1)


async def test_bad_requests_are_explained(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Wrong method, compression and broken rules get an errors object."""
    url = emulator.mparticle_url + "/events"
    async with session.get(url) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert (await response.json())["errors"]
    packed = gzip.compress(json.dumps(batch()).encode())
    reply = await post(session, url, packed, **{"Content-Encoding": "gzip"})
    assert reply.status == 400
    assert "Content-Encoding" in reply.error["message"]
    reply = await post(session, url, {"environment": "production", "events": {}})
    assert reply.error == {
        "code": "BAD_REQUEST",
        "message": "events must be a JSON array",
    }
    assert emulator.requests[-1].note == "batch 0: events must be a JSON array"
    assert (await post(session, url + "/", batch())).status == 404


async def test_sizes_are_bounded(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """A request of 256,000 bytes passes, a larger one is 413."""
    url = emulator.mparticle_url + "/bulkevents"
    half = batch(user_attributes={"a": "x" * 127_000})
    body = json.dumps([half, half]).encode()
    full = body.ljust(256_000)
    assert (await post(session, url, full)).status == 202
    reply = await post(session, url, full + b" ")
    assert (reply.status, reply.error["code"]) == (413, "PAYLOAD_TOO_LARGE")
    large = batch(user_attributes={"a": "x" * 128_000})
    reply = await post(session, emulator.mparticle_url + "/events", large)
    assert reply.status == 413
    assert len(emulator.batches) == 2


async def test_bulk_taken_in_part(session: aiohttp.ClientSession) -> None:
    """With bulk_partial bad batches are counted but not told."""
    async with Emulator(bulk_partial=True) as emulator:
        url = emulator.mparticle_url + "/bulkevents"
        reply = await post(session, url, [batch(mpid=1), {}, batch(mpid=2)])
        assert (reply.status, reply.body) == (202, b"")
        assert [one["mpid"] for one in emulator.batches] == [1, 2]
        assert emulator.stats.partial_dropped == 1
        assert "dropped 1 of 3" in emulator.requests[0].note


async def test_rate_limit(session: aiohttp.ClientSession) -> None:
    """The limit's use is told, and past it a wait of a second helps."""
    clock = Clock()
    async with Emulator(rate_limit_per_second=4, clock=clock) as emulator:
        url = emulator.mparticle_url + "/bulkevents"
        reply = await post(session, url, [batch()] * 3)
        assert reply.headers["X-mp-rate-limit-percentage-used"] == "75"
        reply = await post(session, url, [batch()] * 2)
        assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
        assert reply.headers["X-mp-rate-limit-exceeded"] == "account"
        assert emulator.requests[-1].note == "more than 4 batches in one second"
        clock.now += 1
        assert (await post(session, url, [batch()] * 2)).status == 202
        emulator.reset()
        reply = await post(session, url, [batch()] * 4)
        assert reply.headers["X-mp-rate-limit-percentage-used"] == "100"


@pytest.mark.parametrize("limit", [0, 0.5, -1, float("nan")])
def test_rate_limit_must_let_a_batch_through(limit: float) -> None:
    """A limit below one batch is refused by name."""
    with pytest.raises(ValueError, match="rate_limit_per_second is"):
        Emulator(rate_limit_per_second=limit)


async def test_faults_speak_as_mparticle(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """Faults fire for these paths too, with mParticle's error body."""
    url, path = emulator.mparticle_url + "/events", "/v2/events"
    emulator.faults.add(Fault(503, path=path), Fault(429, headers={"Retry-After": "2"}))
    reply = await post(session, url, batch())
    assert (reply.status, reply.error["code"]) == (503, "SERVICE_UNAVAILABLE")
    reply = await post(session, url, batch())
    assert (reply.status, reply.headers["Retry-After"]) == (429, "2")
    assert reply.error["code"] == "TOO_MANY_REQUESTS"
    assert emulator.batches == []
    emulator.faults.add(Fault(hang_up="after"), Fault(hang_up="during"))
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await post(session, url, batch("r1"))
    assert (await post(session, url, batch("r1"))).status == 202
    assert (len(emulator.batches), emulator.stats.batch_duplicates) == (1, 1)
    emulator.faults.add(Fault.too_large(1, count=1))
    reply = await post(session, emulator.mparticle_url + "/bulkevents", [batch()] * 2)
    assert (reply.status, reply.error["code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_late_answer_keeps_the_judges_headers(
    session: aiohttp.ClientSession,
) -> None:
    """A fault that leaves the verdict alone changes only the headers it names."""
    async with Emulator(rate_limit_per_second=4) as emulator:
        used = "X-mp-rate-limit-percentage-used"
        emulator.faults.add(
            Fault(delay=0.001), Fault(headers={used.lower(): "92", "X-Test": "1"})
        )
        url = emulator.mparticle_url + "/events"
        reply = await post(session, url, batch())
        assert (reply.status, reply.body, reply.headers[used]) == (202, b"", "25")
        reply = await post(session, url, batch())
        assert reply.headers.getall(used) == ["92"]
        assert reply.headers["X-Test"] == "1"


async def test_control_lists_batches(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    """The emulator's own pages show batches, without headers or secrets."""
    url = emulator.mparticle_url + "/bulkevents"
    await post(session, url, [batch(mpid=1), batch(mpid=2)])
    texts = []
    for page in ("batches?after=1", "requests", "stats", ""):
        path = f"/_emulator/{page}" if page else "/"
        async with session.get(emulator.url + path) as response:
            texts.append(await response.text())
    listed, requests, stats = (json.loads(text) for text in texts[:3])
    assert listed == {"batches": [batch(mpid=2)], "total": 2}
    assert requests["requests"][0]["batches"] == 2
    assert stats["batches_ingested"] == 2
    assert "mparticle" in texts[3].lower()
    assert "top-secret" not in "".join(texts)
