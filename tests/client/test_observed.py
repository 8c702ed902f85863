"""What a client shows of itself: its health, its requests, the numbers of its log."""

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from amplitude_async import Amplitude, Answered, Health, Observer, Stats
from amplitude_async.delivery.stats import read_whole
from amplitude_async.emulator import Emulator, Fault
from amplitude_async.mparticle import Batch, CustomEvent, MParticle
from tests.conftest import KEY

__all__: list[str] = []

Connect = Callable[..., Amplitude]
USER = "user-1234567890"


class Watcher(Observer):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.requests: list[Answered] = []
        self.ages: list[float] = []
        self.steps: list[str] = []

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Note when a request begins and ends."""
        self.steps.append("begin")
        yield
        self.steps.append("end")

    def answered(self, request: Answered) -> None:
        """Keep it."""
        self.requests.append(request)
        self.steps.append("answered")

    def delivered(self, ages: Sequence[float]) -> None:
        """Keep them."""
        self.ages += ages


# --- Health ---


async def test_health_is_known_before_the_start_and_after_the_end(
    connect: Connect,
) -> None:
    """A probe may ask at any time."""
    client = connect()
    assert client.health is Health.HEALTHY
    async with client:
        await (await client.track("Seen", user_id=USER))
        assert str(client.health) == "healthy"
    assert client.health is Health.HEALTHY


async def test_a_refused_key_is_seen(
    connect: Connect, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the server takes something; a forked child knows nothing of it."""
    emulator.faults.add(Fault(401))
    async with connect() as client:
        await (await client.track("Seen", user_id=USER))
        assert client.health is Health.REFUSED
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            assert str(client.health) == "healthy"
    assert client.health is Health.REFUSED


async def test_a_server_that_is_away_is_seen(connect: Connect) -> None:
    """After three requests in vain the destination is failing."""
    client = connect(
        server_url="http://127.0.0.1:1/",
        retry_base_interval=0.01,
        retry_max_interval=0.01,
        trust_env=False,
    )
    async with client:
        await client.track("Seen", user_id=USER)
        await client.flush(timeout=0.5)
        assert client.health is Health.FAILING
        await client.shutdown(0)


# --- Observers ---


async def test_an_observer_hears_of_each_request(
    connect: Connect, emulator: Emulator
) -> None:
    """How it ended, how long it took, and how old the events were."""
    emulator.faults.add(Fault.server_error())
    watcher = Watcher()
    client = connect(retry_base_interval=0.01)
    client.observe(watcher)  # before the start
    async with client:
        deliveries = [await client.track("Seen", user_id=USER) for _ in range(3)]
        for delivery in deliveries:
            await delivery
    stats = client.stats

    assert stats.requests == len(watcher.requests) == 2
    assert [request.status for request in watcher.requests] == [500, 200]
    assert [request.ok for request in watcher.requests] == [False, True]
    assert sum(request.size for request in watcher.requests) == stats.bytes_sent
    assert all(0 < request.duration < 5 for request in watcher.requests)
    assert len(watcher.ages) == 3
    assert all(0 <= age < 5 for age in watcher.ages)
    assert watcher.steps == ["begin", "end", "answered"] * 2


async def test_no_answer_has_no_status(connect: Connect) -> None:
    """Neither has an answer that broke off."""
    watcher = Watcher()
    client = connect(server_url="http://127.0.0.1:1/", trust_env=False)
    client.observe(watcher)
    async with client:
        await client.track("Seen", user_id=USER)
        await client.flush(timeout=0.2)
        await client.shutdown(0)
    assert {request.status for request in watcher.requests} == {0}
    assert watcher.ages == []


async def test_an_observer_can_leave(connect: Connect) -> None:
    """Another stays; to leave twice is no error."""
    first, second = Watcher(), Watcher()
    async with connect() as client:
        leave = client.observe(first)
        client.observe(second)
        leave()
        leave()
        await (await client.track("Seen", user_id=USER))
    assert (len(first.requests), len(second.requests)) == (0, 1)


async def test_one_who_observes_twice_may_end_each(connect: Connect) -> None:
    """What ends the first leaves the second."""
    watcher = Watcher()
    async with connect() as client:
        leave = client.observe(watcher)
        client.observe(watcher)
        leave()
        leave()
        await (await client.track("Seen", user_id=USER))
    assert len(watcher.requests) == 1


async def test_an_observer_may_use_the_client(connect: Connect) -> None:
    """It tracks, flushes, shuts down, observes and leaves while it is called."""
    client = connect()
    tasks: list[asyncio.Task[Any]] = []

    class Busy(Watcher):
        def answered(self, request: Answered) -> None:
            super().answered(request)
            client.observe(Watcher())()
            if len(self.requests) == 1:
                client.track_nowait("Seen Again", user_id=USER)
                tasks.append(asyncio.ensure_future(client.flush()))
            else:
                leave()
                tasks.append(asyncio.ensure_future(client.shutdown()))

    busy = Busy()
    leave = client.observe(busy)
    async with client:
        await (await client.track("Seen", user_id=USER))
        await tasks[0]
    await asyncio.gather(*tasks)
    assert len(busy.requests) == client.stats.delivered == 2
    assert client.stats.pending == 0


class Raising(Observer):
    """Raises wherever it is asked."""

    def __init__(self, fault: BaseException) -> None:
        self._fault = fault

    def sending(self) -> AbstractContextManager[object]:
        """Raise."""
        raise self._fault

    def answered(self, _: Answered) -> None:
        """Raise."""
        raise self._fault

    def delivered(self, _: Sequence[float]) -> None:
        """Raise."""
        raise self._fault


class Swallowing(Observer):
    """Gives a context that swallows what is raised in it, and one that raises."""

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Swallow everything, then raise."""
        try:
            yield
        finally:
            raise ZeroDivisionError


@pytest.mark.parametrize(
    "observer",
    [
        Raising(ZeroDivisionError()),
        Raising(asyncio.CancelledError()),
        Swallowing(),
        object(),
    ],
    ids=lambda one: type(one).__name__,
)
async def test_an_observer_that_raises_costs_nothing(
    connect: Connect, observer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one hears all the same, and the log says it once."""
    watcher = Watcher()
    async with connect() as client:
        client.observe(observer)
        client.observe(watcher)
        result = await (await client.track("Seen", user_id=USER))
    assert result.ok
    assert len(watcher.requests) == len(watcher.ages) == 1
    told = [
        r for r in caplog.records if getattr(r, "amplitude_cause", "") == "observer"
    ]
    assert len(told) == 1


current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="")


async def test_a_request_runs_in_no_context_of_the_host(connect: Connect) -> None:
    """What an observer sets is seen by its request and by nobody else."""
    seen: list[str] = []

    class Setting(Observer):
        @contextmanager
        def sending(self) -> Iterator[None]:
            seen.append(current.get())
            token = current.set("ours")
            yield
            current.reset(token)

        def answered(self, _: Answered) -> None:
            seen.append(current.get())

    current.set("of the host")
    async with connect() as client:
        client.observe(Setting())
        await (await client.track("Seen", user_id=USER))
    assert seen == ["", ""]
    assert current.get() == "of the host"


async def test_direct_uploads_are_observed_as_well() -> None:
    """They run in the caller's task, whose context is left as it was."""
    watcher = Watcher()
    batch = Batch(
        environment="development",
        user_identities={"customer_id": "c-1"},
        events=[CustomEvent(event_name="Seen", custom_event_type="other")],
    )
    async with Emulator() as emulator:
        client = MParticle(
            "key", "secret", base_url=emulator.mparticle_url, trust_env=False
        )
        client.observe(watcher)
        async with client:
            assert client.health is Health.HEALTHY
            assert (await client.upload(batch)).ok
            assert (await (await client.send(batch))).ok
    assert [request.status for request in watcher.requests] == [202, 202]
    assert len(watcher.ages) == 1


# --- A snapshot that adds up in any thread ---


def test_a_torn_account_is_read_again() -> None:
    """What is between two counters is looked at until it adds up."""
    torn, whole = Stats(accepted=2, pending=1), Stats(accepted=2, pending=2)
    looks = iter([torn, torn, whole])
    assert read_whole(lambda: next(looks)) is whole
    assert read_whole(lambda: torn) is torn  # and not for ever


async def test_another_thread_reads_what_adds_up(connect: Connect) -> None:
    """However busy the loop is meanwhile."""
    over = threading.Event()
    seen: list[Stats] = []

    def read() -> None:
        while not over.is_set():
            seen.append(read_whole(lambda: client.stats))

    async with connect(max_storage_capacity=100_000) as client:
        reader = asyncio.create_task(asyncio.to_thread(read))
        for _ in range(3_000):
            await client.track("Seen", user_id=USER)
        over.set()
        await reader
        await client.flush()
    assert len(seen) > 1
    assert [one for one in seen if not one.balanced] == []


# --- Numbers in the log ---


def numbers(record: logging.LogRecord) -> dict[str, Any]:
    """Give what a record has for machines."""
    return {
        name.removeprefix("amplitude_"): value
        for name, value in vars(record).items()
        if name.startswith("amplitude_")
    }


async def test_lines_carry_their_numbers(
    connect: Connect, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per request, one per trouble, one at the end."""
    caplog.set_level(logging.DEBUG, logger="amplitude_async")
    emulator.faults.add(Fault.server_error())
    async with connect(retry_base_interval=0.01) as client:
        for _ in range(3):
            delivery = await client.track("Seen", user_id=USER)
        await delivery
        await client.track("Seen", user_id="a")
    lines = [(r.getMessage(), numbers(r)) for r in caplog.records]

    uploads = [extra for text, extra in lines if "upload of" in text]
    assert [extra["status"] for extra in uploads] == [500, 200]
    assert [extra["verdict"] for extra in uploads] == ["broken", "accept"]
    assert [extra["events"] for extra in uploads] == [3, 3]
    assert sum(extra["bytes"] for extra in uploads) == client.stats.bytes_sent
    assert all(0 < extra["duration"] < 5 for extra in uploads)
    [broken] = [extra for text, extra in lines if "state healthy" in text]
    assert broken == {
        "destination": "amplitude",
        "cause": "broken",
        "count": 1,
        "status": 500,
        "pending": 3,
    }
    [rejected] = [extra for text, extra in lines if "event rejected" in text]
    assert (rejected["cause"], rejected["status"]) == ("rejected", 0)
    [closed] = [extra for text, extra in lines if "to spare" in text]
    assert closed == {
        "destination": "amplitude",
        "delivered": 3,
        "rejected": 1,
        "dropped": 0,
        "stored": 0,
    }
    everything = repr([extra for _, extra in lines])
    assert KEY not in everything
    assert USER not in everything


async def test_numbers_meet_no_attribute_of_logging(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them begins with our own name, and is a number or a word of ours."""
    caplog.set_level(logging.DEBUG, logger="amplitude_async")
    async with connect() as client:
        await client.track("Seen", user_id=USER)
    own = set(vars(logging.makeLogRecord({})))
    ours = [r for r in caplog.records if r.name == "amplitude_async"]
    assert ours
    for record in ours:
        added = set(vars(record)) - own - {"message", "asctime"}
        assert all(name.startswith("amplitude_") for name in added), added
        assert all(type(v) in {int, float, str} for v in numbers(record).values())
