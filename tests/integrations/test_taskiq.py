"""A taskiq worker has one client, and each task its own bound fields."""

import asyncio
import runpy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amplitude_async import Amplitude, bind, bindings, bound
from amplitude_async.emulator import Emulator
from tests.integrations.interleaved import Interleaved

pytest.importorskip("taskiq")

from taskiq import (
    Context,
    InMemoryBroker,
    SimpleRetryMiddleware,
    TaskiqDepends,
    TaskiqMessage,
)
from taskiq.abc.middleware import TaskiqMiddleware

from amplitude_async.integrations import taskiq as taskiq_module
from amplitude_async.integrations.carrier import HEADER
from amplitude_async.integrations.taskiq import (
    AmplitudeDep,
    AmplitudeTaskMiddleware,
    amplitude_of,
)

__all__: list[str] = []

JOBS = 1000
WORKERS: Amplitude = TaskiqDepends(amplitude_of)


class Forger(TaskiqMiddleware):
    """A producer that writes what it likes."""

    def __init__(self, header: object) -> None:
        super().__init__()
        self.header = header

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Write it into the label."""
        message.labels[HEADER] = self.header
        return message


def broker_with(
    *others: TaskiqMiddleware, broker: InMemoryBroker | None = None, **options: Any
) -> InMemoryBroker:
    """Make a broker in memory with our middleware and others."""
    broker = broker or InMemoryBroker()
    broker.add_middlewares(AmplitudeTaskMiddleware(**options), *others)
    return broker


async def idle(broker: InMemoryBroker) -> None:
    """Wait for all tasks, and for those that they have sent."""
    while broker._running_tasks:  # noqa: SLF001 - the broker waits for those of now
        await broker.wait_all()
        await asyncio.sleep(0)  # a task that is done leaves in its own time


def users(emulator: Emulator) -> list[str | None]:
    """Return the user of each event that has arrived."""
    return [event.get("user_id") for event in emulator.events]


async def test_the_client_lives_as_long_as_the_worker(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """All tasks have the same client, and the end of the broker drains it."""
    broker = broker_with(**options)
    seen: list[Amplitude] = []

    @broker.task
    async def welcome(user: str, amplitude: Amplitude = WORKERS) -> None:
        seen.append(amplitude)
        await amplitude.track("Welcomed", user_id=user)

    await broker.startup()
    await welcome.kiq("user-1")
    await welcome.kiq("user-2")
    await broker.wait_all()
    await broker.shutdown()

    assert sorted(map(str, users(emulator))) == ["user-1", "user-2"]
    assert seen[0] is seen[1]


async def test_an_annotation_gives_the_client_too(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """`AmplitudeDep` needs no default value."""
    broker = broker_with(**options)

    @broker.task
    async def welcome(user: str, amplitude: AmplitudeDep) -> None:
        await amplitude.track("Welcomed", user_id=user)

    await broker.startup()
    await welcome.kiq("user-1")  # type: ignore[call-overload]  # taskiq fills it in
    await broker.wait_all()
    await broker.shutdown()

    assert users(emulator) == ["user-1"]


async def test_a_client_of_the_application_is_left_open(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """Whoever hands a client over shuts it down."""
    async with Amplitude("key", **options) as client:
        broker = broker_with(client=client)

        @broker.task
        async def welcome(amplitude: Amplitude = WORKERS) -> None:
            assert amplitude is client

        await broker.startup()
        task = await welcome.kiq()
        await broker.wait_all()
        await broker.shutdown()
        assert not (await task.get_result()).is_err
        await client.track("Still Open", user_id="user-1")

    assert users(emulator) == ["user-1"]


async def test_a_process_that_only_sends_has_no_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A producer needs no key: it writes carriers, and tracks with its own client."""
    monkeypatch.delenv("AMPLITUDE_API_KEY", raising=False)
    monkeypatch.setattr(taskiq_module, "InMemoryBroker", int)
    broker = broker_with()

    await broker.startup()

    assert "amplitude" not in broker.state
    await broker.shutdown()


async def test_a_worker_without_the_middleware_says_so(
    options: dict[str, Any],
) -> None:
    """The task fails with the remedy, and not with a missing attribute."""
    broker = InMemoryBroker()

    @broker.task
    async def welcome(amplitude: Amplitude = WORKERS) -> None:
        raise AssertionError(amplitude)

    await broker.startup()
    task = await welcome.kiq()
    await broker.wait_all()
    result = await task.get_result()
    await broker.shutdown()

    assert "AmplitudeTaskMiddleware" in str(result.error)


async def test_what_is_bound_travels_where_both_sides_want_it(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """The event of a task, and of the task it sends, has the user of the sender."""
    broker = broker_with(carry=True, **options)

    @broker.task
    async def second(amplitude: Amplitude = WORKERS) -> None:
        await amplitude.track("Second")

    @broker.task
    async def first(amplitude: Amplitude = WORKERS) -> None:
        bind(event_properties={"job": "first"})
        await amplitude.track("First")
        await second.kiq()

    await broker.startup()
    with bound(user_id="user-1", ip="192.0.2.1"):
        await first.kiq()
        assert bindings() == {"user_id": "user-1", "ip": "192.0.2.1"}
    await idle(broker)
    await broker.shutdown()

    assert users(emulator) == ["user-1", "user-1"]
    assert [e["event_properties"] for e in emulator.events] == [{"job": "first"}] * 2
    assert all(event.get("ip") != "192.0.2.1" for event in emulator.events)


async def test_nothing_travels_unless_asked(options: dict[str, Any]) -> None:
    """Without carry, a task in the same process does not see the sender's fields."""
    broker = broker_with(**options)
    seen: list[Any] = []

    @broker.task
    async def look(amplitude: Amplitude = WORKERS) -> None:
        seen.append(bindings())

    await broker.startup()
    with bound(user_id="user-1"):
        await look.kiq()
        await broker.wait_all()
    await broker.shutdown()

    assert seen == [{}]


async def test_what_is_bound_around_the_worker_is_bound_in_its_tasks(
    options: dict[str, Any],
) -> None:
    """Fields of the whole service are in each task, and the carrier lies over them."""
    broker = broker_with(carry=True, **options)
    seen: list[Any] = []

    @broker.task
    async def look(amplitude: Amplitude = WORKERS) -> None:
        seen.append(bindings())

    with bound(event_properties={"service": "mailer", "plan": "none"}):
        await broker.startup()
    with bound(user_id="user-1", event_properties={"plan": "pro"}):
        await look.kiq()
    await broker.wait_all()
    await broker.shutdown()

    assert seen == [
        {"user_id": "user-1", "event_properties": {"service": "mailer", "plan": "pro"}}
    ]


@pytest.mark.parametrize("header", ["{", '{"v":2}', 7, None, ["x"] * 5000])
async def test_a_forged_label_breaks_no_task(
    header: object, options: dict[str, Any]
) -> None:
    """The task runs without identity, whatever the label holds."""
    broker = broker_with(carry=True, **options)
    broker.add_middlewares(Forger(header))
    seen: list[Any] = []

    @broker.task
    async def look(amplitude: Amplitude = WORKERS) -> None:
        seen.append(bindings())

    await broker.startup()
    await look.kiq()
    await broker.wait_all()
    await broker.shutdown()

    assert seen == [{}]


async def test_labels_of_the_sender_stay_as_they_are(options: dict[str, Any]) -> None:
    """The carrier is one more label of the message, and of nothing else."""
    broker = broker_with(carry=True, **options)
    seen: list[dict[str, Any]] = []

    @broker.task(team="billing")
    async def look(context: Context = TaskiqDepends()) -> None:  # noqa: B008 - taskiq
        seen.append(dict(context.message.labels))

    await broker.startup()
    with bound(user_id="user-1"):
        await look.kiq()
    await broker.wait_all()
    await broker.shutdown()

    assert seen == [{"team": "billing", HEADER: '{"v":1,"user_id":"user-1"}'}]
    assert look.labels == {"team": "billing"}


@pytest.mark.parametrize("in_place", [False, True])
async def test_a_task_that_fails_ends_its_scope(
    in_place: bool, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Failed, timed out, cancelled, retried: the scope ends and the client lives."""
    broker = broker_with(
        SimpleRetryMiddleware(),
        broker=InMemoryBroker(await_inplace=in_place),
        **options,
    )
    runs: list[Any] = []

    @broker.task(retry_on_error=True, max_retries=3)
    async def fail(user: str, amplitude: Amplitude = WORKERS) -> None:
        runs.append(bindings())
        bind(user_id=user)
        await amplitude.track("Failed")
        raise LookupError

    @broker.task(timeout=0.02)
    async def hang(amplitude: Amplitude = WORKERS) -> None:
        bind(user_id="user-slow")
        await amplitude.track("Hung")
        await asyncio.Event().wait()

    @broker.task
    async def cancel(amplitude: Amplitude = WORKERS) -> None:
        bind(user_id="user-gone")
        await amplitude.track("Cancelled")
        raise asyncio.CancelledError

    await broker.startup()
    await fail.kiq("user-1")
    await hang.kiq()
    await cancel.kiq()
    await idle(broker)
    assert bindings() == {}
    await broker.shutdown()

    assert runs == [{}] * 3
    assert sorted(map(str, users(emulator))) == [
        "user-1",
        "user-1",
        "user-1",
        "user-gone",
        "user-slow",
    ]


@pytest.mark.parametrize(("flush_each", "arrived"), [(False, 0), (True, 2)])
async def test_a_task_waits_for_its_events_only_if_asked(
    flush_each: bool, arrived: int, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Nothing is flushed per task, unless with ``flush_each``."""
    broker = broker_with(flush_each=flush_each, flush_interval=600.0, **options)

    @broker.task
    async def welcome(amplitude: Amplitude = WORKERS) -> None:
        # The first batch of a client goes at once, so it is not this one.
        await (await amplitude.track("First", user_id="user-1"))
        emulator.reset()
        await amplitude.track("Second", user_id="user-1")
        await amplitude.track("Third", user_id="user-1")

    await broker.startup()
    await welcome.kiq()
    await broker.wait_all()
    seen = len(emulator.events)
    await broker.shutdown()

    assert seen == arrived


@pytest.mark.long
@pytest.mark.parametrize("_", range(3))
async def test_a_thousand_tasks_have_their_own_identities(
    _: int, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Interleaved tasks, child tasks and functions in threads never cross."""
    broker = broker_with(carry=["user_id"], **options)
    jobs_at_once = Interleaved(JOBS)

    @broker.task
    async def work(job: int, amplitude: Amplitude = WORKERS) -> None:
        await jobs_at_once.work(amplitude, job)

    await broker.startup()
    for job in range(JOBS):
        with bound(user_id=f"user-{job}"):
            await work.kiq(job)
    await broker.wait_all()
    await broker.shutdown()

    jobs_at_once.check(emulator)


async def test_a_plain_function_in_a_thread_has_the_scope_of_its_task(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """What a synchronous task sees and binds is its own."""
    broker = broker_with(carry=True, **options)
    seen: list[Any] = []

    @broker.task
    def look(name: str) -> None:
        seen.append((threading.current_thread().name != "MainThread", bindings()))
        bind(user_id=name)

    await broker.startup()
    with bound(user_id="user-1"):
        await look.kiq("user-2")
        await look.kiq("user-3")
    await broker.wait_all()
    await broker.shutdown()

    assert seen == [(True, {"user_id": "user-1"})] * 2


WORKER = """
import os
import redis.asyncio as redis
from taskiq import AsyncBroker, TaskiqDepends
from amplitude_async import Amplitude
from amplitude_async.integrations.taskiq import AmplitudeTaskMiddleware, amplitude_of

class RedisBroker(AsyncBroker):
    async def kick(self, message):
        async with redis.from_url(os.environ["REDIS_URL"]) as server:
            await server.rpush("taskiq", message.message)

    async def listen(self):
        async with redis.from_url(os.environ["REDIS_URL"]) as server:
            while True:
                if found := await server.blpop("taskiq", timeout=1):
                    yield found[1]

broker = RedisBroker().with_middlewares(AmplitudeTaskMiddleware(carry=["user_id"]))

@broker.task(task_name="work")
async def work(job: int, amplitude: Amplitude = TaskiqDepends(amplitude_of)) -> None:
    await amplitude.track("Done", event_properties={"job": job})
    print("did the job", flush=True)
"""


async def test_workers_of_the_command_line_lose_nothing(
    tmp_path: Path,
    redis_url: str,
    emulator: Emulator,
    start_worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes work, SIGTERM stops them, and each event has its sender's user."""
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.delenv("AMPLITUDE_API_KEY", raising=False)
    broker = runpy.run_path(str(tmp_path / "worker.py"))["broker"]
    await broker.startup()
    task = broker.find_task("work")
    for job in range(50):
        with bound(user_id=f"user-{job}"):
            await task.kiq(job)
    await broker.shutdown()

    command = ("-m", "taskiq", "worker", "--workers", "2", "worker:broker")
    async with start_worker(*command, folder=tmp_path) as worker:
        await worker.wrote("did the job", 50)
        code = await worker.stop()

    assert code == 0, worker.log
    assert {
        event["event_properties"]["job"]: event["user_id"] for event in emulator.events
    } == {job: f"user-{job}" for job in range(50)}


async def test_the_example_delivers_before_it_stops(
    emulator: Emulator, start_worker: Callable[..., Any]
) -> None:
    """SIGTERM ends the example, and every event with its user has arrived."""
    async with start_worker("examples/taskiq_worker.py") as worker:
        await worker.wrote("welcomed", 3)
        code = await worker.stop()

    assert code == 0, worker.log
    assert sorted(map(str, users(emulator))) == ["user-1", "user-2", "user-3"]
    assert {event["event_type"] for event in emulator.events} == {"User Welcomed"}
