"""Direct uploads in virtual time: retries, rate limits, splitting, closing."""

import asyncio
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async.delivery.endpoint import Response
from amplitude_async.mparticle import (
    AuthError,
    Batch,
    MParticleError,
    RateLimitedError,
    RetryExhaustedError,
    ServerError,
    TransportError,
    UploadResult,
)
from amplitude_async.mparticle.door import Piece
from amplitude_async.mparticle.upload import pack

__all__: list[str] = []

Virtual = Callable[..., Any]
Make = Callable[..., Batch]

TAKEN = Response(202)
SLOW_DOWN = Response(
    429, headers={"retry-after": "2", "x-mp-rate-limit-exceeded": '"workspace"'}
)


async def ended(client: Any, task: "asyncio.Task[Any]", most: float = 3600.0) -> Any:
    """Let virtual time pass until a task is done; returns what it brought."""
    await client.fake.settle()
    while not task.done():
        assert client.fake.next_timer is not None, "nothing will ever happen"
        assert client.fake.now() < most
        await client.fake.advance(client.fake.next_timer)
    return await task


def start(coroutine: Any) -> "asyncio.Task[Any]":
    """Run an upload beside the test."""
    return asyncio.ensure_future(coroutine)


async def test_retry_after_is_waited_and_the_body_is_the_same(
    virtual: Virtual, make_batch: Make
) -> None:
    """A 429 costs the seconds it asks for; the retry is equal byte by byte."""
    client = virtual(SLOW_DOWN)
    result = await ended(client, start(client.upload(make_batch())))

    assert result.ok
    assert result.attempts == 2
    first, second = client.times
    assert second - first >= 2.0
    assert client.bodies[0] == client.bodies[1]
    (sent,) = {json.loads(body)["source_request_id"] for body in client.bodies}
    assert result.source_request_ids == (sent,)


@pytest.mark.parametrize(
    "header", [None, "soon", "-5", "Tue, 14 Nov 2023 22:13:20 GMT", "0"]
)
async def test_a_rate_limit_without_seconds_backs_off(
    virtual: Virtual, make_batch: Make, header: str | None
) -> None:
    """Absent, past and unreadable waits fall back on doubling with jitter."""
    headers = {} if header is None else {"retry-after": header}
    client = virtual(*[Response(429, headers=headers)] * 4, retry_base_interval=1.0)
    result = await ended(client, start(client.upload(make_batch())))

    times = client.times
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert result.attempts == 5
    for wait, ceiling in zip(waits, [1.0, 2.0, 4.0, 8.0], strict=True):
        assert 0 < wait <= ceiling


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Response(500), ServerError),
        (Response(503, headers={"retry-after": "1"}), ServerError),
        (Response(502, b"<html>"), ServerError),
        (Response(408), ServerError),
        (Response(0, error="connection reset"), TransportError),
        (Response(200, error=None), None),
        (Response(404, error="broke off"), TransportError),
        (SLOW_DOWN, RateLimitedError),
    ],
)
async def test_what_passes_is_tried_again_up_to_the_limit(
    virtual: Virtual,
    make_batch: Make,
    answer: Response,
    kind: type[MParticleError] | None,
) -> None:
    """The error at the end has the last cause, and says how often it was tried."""
    client = virtual(then=answer, flush_max_retries=3)
    task = start(client.upload(make_batch()))
    if kind is None:
        assert (await ended(client, task)).attempts == 1
        return
    with pytest.raises(kind) as raised:
        await ended(client, task)

    assert isinstance(raised.value, RetryExhaustedError)
    assert len(client.bodies) == 4
    result = raised.value.result
    assert result is not None
    assert result.attempts == 4
    assert not result.ok
    assert "(after 4 requests)" in str(raised.value)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 413, 422])
async def test_what_does_not_pass_is_not_tried_again(
    virtual: Virtual, make_batch: Make, status: int
) -> None:
    """One request, and an error that is no RetryExhaustedError."""
    client = virtual(then=Response(status))
    with pytest.raises(MParticleError, match=r"\(after 1 request\)") as raised:
        await client.upload(make_batch())

    assert not isinstance(raised.value, RetryExhaustedError)
    assert len(client.bodies) == 1


async def test_failing_fast(virtual: Virtual, make_batch: Make) -> None:
    """Without retries the caller learns at once how long the server wants to rest."""
    client = virtual(SLOW_DOWN, flush_max_retries=0)
    with pytest.raises(RateLimitedError) as raised:
        await client.upload(make_batch())

    result = raised.value.result
    assert result is not None
    assert (result.retry_after, result.scope) == (2.0, "workspace")


async def test_a_rate_limit_holds_back_every_upload_of_its_client(
    virtual: Virtual, make_batch: Make
) -> None:
    """Concurrent calls wait together, one goes first, and no other client waits."""
    client, other = virtual(SLOW_DOWN), virtual()
    tasks = [start(client.upload(make_batch("a")))]
    await client.fake.settle()
    tasks += [start(client.upload(make_batch(name))) for name in "bcd"]
    await client.fake.settle()
    assert len(client.bodies) == 1

    assert (await other.upload(make_batch())).attempts == 1
    await client.fake.advance(1.9)
    assert len(client.bodies) == 1
    results = [await ended(client, task) for task in tasks]

    assert [result.attempts for result in results] == [2, 1, 1, 1]
    assert client.network.most_in_flight <= 3
    assert min(client.times[1:]) >= 2.0


async def test_after_a_rate_limit_one_request_goes_first(
    virtual: Virtual, make_batch: Make
) -> None:
    """Until one has come through, the others stay behind it."""
    client = virtual(SLOW_DOWN, SLOW_DOWN, Response(400), SLOW_DOWN)
    tasks = [start(client.upload(make_batch("a")))]
    await client.fake.settle()
    tasks += [start(client.upload(make_batch(name))) for name in "bc"]
    ends = [
        await asyncio.gather(ended(client, t), return_exceptions=True) for t in tasks
    ]

    assert client.network.most_in_flight == 1
    assert sum(isinstance(end, MParticleError) for (end,) in ends) == 1
    assert sum(isinstance(end, UploadResult) for (end,) in ends) == 2


async def test_cancelling_a_waiting_upload(virtual: Virtual, make_batch: Make) -> None:
    """It stops at once, leaves no task or timer, and the others go on."""
    client = virtual(SLOW_DOWN)
    await client.start()
    before = asyncio.all_tasks()
    first = start(client.upload(make_batch("a")))
    await client.fake.settle()
    second = start(client.upload(make_batch("b")))
    await client.fake.settle()
    first.cancel()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)

    assert first.cancelled()
    assert second.cancelled()
    assert asyncio.all_tasks() == before
    assert (await ended(client, start(client.upload(make_batch("c"))))).ok


async def test_a_back_off_that_is_cancelled(virtual: Virtual, make_batch: Make) -> None:
    """The same for one that waits after a failure of the server."""
    client = virtual(Response(500), retry_base_interval=60.0)
    task = start(client.upload(make_batch()))
    await client.fake.settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(client.bodies) == 1


async def test_shutdown_ends_waiting_uploads(
    virtual: Virtual, make_batch: Make
) -> None:
    """Who waits for a retry or for a turn gets a result, and nothing is sent after."""
    client = virtual(SLOW_DOWN)
    tasks = [start(client.upload(make_batch("a")))]
    await client.fake.settle()
    tasks += [start(client.upload(make_batch("b")))]
    tasks += [start(client.upload_many([make_batch("c")]))]
    await client.fake.settle()
    await client.shutdown(1.0)
    await client.fake.settle()

    with pytest.raises(RateLimitedError):
        await tasks[0]
    with pytest.raises(TransportError, match="shut down before it was sent") as raised:
        await tasks[1]
    assert raised.value.result is not None
    assert raised.value.result.attempts == 0
    (result,) = await tasks[2]
    assert (result.ok, result.attempts) == (False, 0)
    assert len(client.bodies) == 1


async def test_shutdown_ends_a_back_off(virtual: Virtual, make_batch: Make) -> None:
    """A retry that would come after the end does not come."""
    client = virtual(Response(500), retry_base_interval=60.0)
    task = start(client.upload(make_batch()))
    await client.fake.settle()
    await client.shutdown(None)

    with pytest.raises(ServerError):
        await task
    assert len(client.bodies) == 1


async def test_shutdown_waits_for_a_request_in_flight(
    virtual: Virtual, make_batch: Make
) -> None:
    """It may end within half of the deadline, and its network stays open for it."""
    client = virtual()
    client.network.hang()
    task = start(client.upload(make_batch()))
    await client.fake.settle()
    closing = start(client.shutdown(4.0))
    await client.fake.advance(1.0)
    assert not closing.done()
    client.network.release()
    await client.fake.settle()

    assert (await task).ok
    assert (await closing).balanced
    assert client.network.closed


async def test_shutdown_does_not_wait_for_ever(
    virtual: Virtual, make_batch: Make
) -> None:
    """A request that hangs costs half of the deadline, and ends without a retry."""
    client = virtual()
    client.network.hang()
    task = start(client.upload(make_batch()))
    await client.fake.settle()
    closing = start(client.shutdown(4.0))
    await client.fake.advance(2.0)
    assert closing.done()

    await client.fake.advance(20.0)
    with pytest.raises(TransportError, match="no complete answer"):
        await task
    assert len(client.bodies) == 1


async def test_the_pieces_of_many(virtual: Virtual, make_batch: Make) -> None:
    """250 batches are 100, 100 and 50 in order, and the second may fail alone."""
    client = virtual(TAKEN, Response(400), TAKEN)
    batches = [make_batch(f"c-{number}") for number in range(250)]
    results = await client.upload_many(batches)

    bodies = [json.loads(body) for body in client.bodies]
    assert [len(body) for body in bodies] == [100, 100, 50]
    assert [result.ok for result in results] == [True, False, True]
    sent = [one["user_identities"]["customer_id"] for body in bodies for one in body]
    assert sent == [f"c-{number}" for number in range(250)]
    ids = [one["source_request_id"] for body in bodies for one in body]
    assert ids == [one for result in results for one in result.source_request_ids]
    assert len(set(ids)) == 250


async def test_a_refused_key_is_not_tried_on_the_rest(
    virtual: Virtual, make_batch: Make
) -> None:
    """After a 403 the other requests have its result, and were not sent."""
    client = virtual(then=Response(403))
    results = await client.upload_many([make_batch(str(n)) for n in range(250)])

    assert len(client.bodies) == 1
    assert [result.attempts for result in results] == [1, 0, 0]
    assert [result.status for result in results] == [403, 403, 403]
    assert [len(result.source_request_ids) for result in results] == [100, 100, 50]
    client = virtual(then=Response(401))
    with pytest.raises(AuthError):
        await client.upload(make_batch())


def too_many(most: int) -> Callable[[bytes], Response]:
    """Answer 413 to requests with more batches."""
    return lambda body: Response(413 if len(json.loads(body)) > most else 202)


async def test_what_is_too_large_is_halved(virtual: Virtual, make_batch: Make) -> None:
    """A 413 halves the request, left half first, until it fits."""
    client = virtual(then=too_many(2))
    results = await client.upload_many([make_batch(str(n)) for n in range(7)])

    sizes = [len(json.loads(body)) for body in client.bodies]
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    assert all(result.ok for result in results)
    assert [len(result.source_request_ids) for result in results] == [2, 2, 2, 1]
    client = virtual(then=Response(413))
    results = await client.upload_many([make_batch(str(n)) for n in range(2)])
    assert [result.status for result in results] == [413, 413]


async def test_bisecting_a_bad_request(virtual: Virtual, make_batch: Make) -> None:
    """On request a 400 is halved until the batch at fault stands alone."""

    def judge(body: bytes) -> Response:
        return Response(400 if b'"bad"' in body else 202)

    batches = [make_batch("bad" if number == 5 else str(number)) for number in range(8)]
    client = virtual(then=judge)
    results = await client.upload_many(batches, bisect=True)
    bad = [result for result in results if not result.ok]
    assert [len(result.source_request_ids) for result in bad] == [1]
    assert sum(len(result.source_request_ids) for result in results) == 8

    plain = virtual(then=judge)
    (result,) = await plain.upload_many(batches)
    assert (result.status, result.attempts) == (400, 1)


def test_requests_are_packed_by_bytes() -> None:
    """None exceeds 256,000 bytes, counted in UTF-8, nor 100 batches."""
    batch = Batch(environment="development", source_request_id="r")
    pieces = [Piece(batch, b"x" * 60_000, "r") for _ in range(10)]
    sizes = [len(b"[%b]" % b",".join(one.bodies)) for one in pack(pieces)]

    assert sizes == [240_005, 240_005, 120_003]
    exact = [Piece(batch, b"x" * 127_998, "r"), Piece(batch, b"x" * 127_998, "r")]
    assert [len(parcel.bodies) for parcel in pack(exact)] == [2]
    assert [len(parcel.bodies) for parcel in pack([*exact, exact[0]])] == [2, 1]
    assert list(pack([])) == []


async def test_what_an_upload_tells(virtual: Virtual, make_batch: Make) -> None:
    """The use of the rate limit as a number, where it is one."""
    header = "x-mp-rate-limit-percentage-used"
    used = [
        (await virtual(Response(202, headers={header: text})).upload(make_batch()))
        for text in ("92", ' "7.5" ', "nan", "a lot")
    ]

    assert [one.rate_limit_percentage for one in used] == [92.0, 7.5, None, None]
    assert re.fullmatch(r"[0-9a-f-]{36}", used[0].source_request_ids[0])
    assert (used[0].status, used[0].message) == (202, "queued by mParticle")


async def test_compression_is_only_for_who_asks(
    virtual: Virtual, make_batch: Make
) -> None:
    """No document allows it: plain by default, gzip where it is set."""
    batch = make_batch(user_attributes={f"a{n}": "x" * 50 for n in range(50)})
    plain, small = virtual(), virtual(compression="gzip")
    await plain.upload(batch)
    await small.upload(batch)
    await small.upload(make_batch())

    assert [one.compressed for one in plain.network.requests] == [False]
    assert [one.compressed for one in small.network.requests] == [True, False]
