"""An arq worker has one client, and each job its own bound fields."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amplitude_async import Amplitude, bind, bindings, bound
from amplitude_async.emulator import Emulator
from amplitude_async.exceptions import ConfigurationError
from tests.integrations.interleaved import Interleaved

pytest.importorskip("arq")
pytest.importorskip("fakeredis")

from arq import ArqRedis, Retry, Worker, func
from fakeredis import FakeAsyncRedis

from amplitude_async.integrations.arq import AmplitudeJobs
from amplitude_async.integrations.carrier import HEADER

__all__: list[str] = []

JOBS = 1000


def users(emulator: Emulator) -> list[str | None]:
    """Return the user of each event that has arrived."""
    return [event.get("user_id") for event in emulator.events]


class Queue:
    """A queue in memory, and a worker that empties it."""

    def __init__(self, jobs: AmplitudeJobs, functions: Any) -> None:
        self.functions = [func(f, name=f.__name__) for f in functions]
        server = FakeAsyncRedis()
        self.pool = ArqRedis(
            connection_pool=server.connection_pool,
            job_serializer=jobs.job_serializer,
            job_deserializer=jobs.job_deserializer,
        )

    async def work(self, jobs: AmplitudeJobs, **settings: Any) -> Worker:
        """Run a worker until the queue is empty, and close it."""
        given = type("WorkerSettings", (), settings)
        worker = Worker(
            functions=self.functions,
            redis_pool=self.pool,
            burst=True,
            poll_delay=0.005,
            handle_signals=False,
            **{k: v for k, v in vars(jobs.worker(given)).items() if k[0] != "_"},
        )
        await worker.async_run()
        await worker.close()
        return worker


@asynccontextmanager
async def queue_of(jobs: AmplitudeJobs, *functions: Any) -> AsyncIterator[Queue]:
    """Make a queue in memory for these functions."""
    queue = Queue(jobs, functions)
    yield queue
    await queue.pool.aclose()


pytestmark = [
    pytest.mark.usefixtures("redis_greets"),
    # arq closes its pool by the old name.
    pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"),
]


async def test_the_client_lives_as_long_as_the_worker(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """All jobs have the same client, and the end of the worker drains it."""
    jobs = AmplitudeJobs(**options)
    seen: list[Amplitude] = []

    async def welcome(ctx: Any, user: str) -> None:
        seen.append(ctx["amplitude"])
        await ctx["amplitude"].track("Welcomed", user_id=user)

    async with queue_of(jobs, welcome) as queue:
        await queue.pool.enqueue_job("welcome", "user-1")
        await queue.pool.enqueue_job("welcome", "user-2")
        worker = await queue.work(jobs)

    assert sorted(map(str, users(emulator))) == ["user-1", "user-2"]
    assert seen[0] is seen[1]
    assert "amplitude" not in worker.ctx


async def test_hooks_of_the_worker_run_within_the_clients_life(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """What a worker sets up and tears down itself has the client at hand."""
    jobs = AmplitudeJobs(**options)
    log: list[str] = []

    def hook(name: str) -> Callable[[Any], Any]:
        async def run(ctx: Any) -> None:
            log.append(name)
            await ctx["amplitude"].track(name, user_id="user-1")
            if "job" in name:
                bind(user_id="user-2")

        return run

    async def work(ctx: Any) -> None:
        assert bindings() == {"user_id": "user-2"}
        log.append("work")

    names = ["on_startup", "on_job_start", "on_job_end", "on_shutdown"]
    async with queue_of(jobs, work) as queue:
        await queue.pool.enqueue_job("work")
        await queue.work(jobs, **{name: hook(name) for name in names})

    assert log == ["on_startup", "on_job_start", "work", "on_job_end", "on_shutdown"]
    assert [event["event_type"] for event in emulator.events] == names


async def test_a_client_of_the_application_is_left_open(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """Whoever hands a client over shuts it down."""
    async with Amplitude("key", **options) as client:
        jobs = AmplitudeJobs(client)

        async def work(ctx: Any) -> None:
            assert ctx["amplitude"] is client

        async with queue_of(jobs, work) as queue:
            await queue.pool.enqueue_job("work")
            worker = await queue.work(jobs)
        assert worker.jobs_complete == 1
        await client.track("Still Open", user_id="user-1")

    assert users(emulator) == ["user-1"]


async def test_what_is_bound_travels_where_both_sides_want_it(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """The event of a job, and of the job it sends, has the user of the sender."""
    jobs = AmplitudeJobs(carry=True, **options)

    async def second(ctx: Any) -> None:
        await ctx["amplitude"].track("Second")

    async def first(ctx: Any) -> None:
        bind(event_properties={"job": "first"})
        await ctx["amplitude"].track("First")
        await ctx["redis"].enqueue_job("second")

    async with queue_of(jobs, first, second) as queue:
        with bound(user_id="user-1", ip="192.0.2.1"):
            await queue.pool.enqueue_job("first")
        await queue.work(jobs)

    assert users(emulator) == ["user-1", "user-1"]
    assert [e["event_properties"] for e in emulator.events] == [{"job": "first"}] * 2
    assert all(event.get("ip") != "192.0.2.1" for event in emulator.events)


async def test_a_worker_that_knows_no_carrier_runs_the_job(
    options: dict[str, Any],
) -> None:
    """A carrier is no argument: whoever does not read it does not meet it."""
    seen: list[Any] = []

    async def look(ctx: Any, name: str) -> str:
        seen.append((name, bindings()))
        return "result"

    plain = AmplitudeJobs(**options)
    async with queue_of(AmplitudeJobs(carry=True), look) as queue:
        with bound(user_id="user-1"):
            job = await queue.pool.enqueue_job("look", "a")
        queue.pool.job_serializer = queue.pool.job_deserializer = None
        await queue.work(plain)
        assert job is not None
        assert await job.result(timeout=1) == "result"

    assert seen == [("a", {})]


async def test_what_is_bound_around_the_worker_is_bound_in_its_jobs(
    options: dict[str, Any],
) -> None:
    """Fields of the whole worker are in each job, below those of the carrier."""
    jobs = AmplitudeJobs(carry=True, **options)
    seen: list[Any] = []

    async def look(ctx: Any) -> None:
        seen.append(bindings())

    async with queue_of(jobs, look) as queue:
        with bound(user_id="user-1"):
            await queue.pool.enqueue_job("look")
        with bound(event_properties={"service": "mailer"}):
            await queue.work(jobs)

    assert seen == [{"user_id": "user-1", "event_properties": {"service": "mailer"}}]


@pytest.mark.parametrize("header", ["{", '{"v":2}', 7, None, ["x"] * 5000, b"\xff"])
async def test_a_forged_carrier_breaks_no_job(
    header: Any, options: dict[str, Any]
) -> None:
    """The job runs without identity, whatever lies beside its arguments."""
    seen: list[Any] = []

    class Forged(AmplitudeJobs):
        def job_serializer(self, job: dict[str, Any]) -> bytes:
            return super().job_serializer({**job, HEADER: header})

    async def look(ctx: Any) -> None:
        seen.append(bindings())

    jobs = Forged(carry=True, **options)
    async with queue_of(jobs, look) as queue:
        await queue.pool.enqueue_job("look")
        await queue.work(jobs)

    assert seen == [{}]


async def test_a_serialiser_of_ones_own_holds_the_carrier(
    options: dict[str, Any],
) -> None:
    """Any serialiser of dicts does; the settings must not have another."""

    def dumps(job: dict[str, Any]) -> bytes:
        return json.dumps(job).encode()

    jobs = AmplitudeJobs(
        carry=True, serializer=dumps, deserializer=json.loads, **options
    )
    seen: list[Any] = []

    async def look(ctx: Any) -> None:
        seen.append(bindings())

    async with queue_of(jobs, look) as queue:
        with bound(user_id="user-1"):
            await queue.pool.enqueue_job("look")
        await queue.work(jobs)

    assert seen == [{"user_id": "user-1"}]
    with pytest.raises(ConfigurationError, match="job_serializer"):
        jobs.worker(type("WorkerSettings", (), {"job_serializer": dumps}))


async def test_a_job_that_fails_ends_its_scope(
    emulator: Emulator, options: dict[str, Any]
) -> None:
    """Failed, retried, timed out, aborted: the scope ends and the client lives."""
    jobs = AmplitudeJobs(carry=True, **options)
    seen: list[Any] = []

    async def again(ctx: Any) -> None:
        seen.append(bindings())
        bind(device_id="device-1")
        await ctx["amplitude"].track("Tried")
        if ctx["job_try"] < 3:
            raise Retry

    async def fail(ctx: Any) -> None:
        bind(user_id="user-failed")
        await ctx["amplitude"].track("Failed")
        raise LookupError

    async def hang(ctx: Any, user: str) -> None:
        bind(user_id=user)
        await ctx["amplitude"].track("Hung")
        if user == "user-aborted":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.Event().wait()

    async with queue_of(jobs, again, fail, hang) as queue:
        with bound(user_id="user-1"):
            await queue.pool.enqueue_job("again")
        await queue.pool.enqueue_job("fail")
        await queue.pool.enqueue_job("hang", "user-slow")
        await queue.pool.enqueue_job("hang", "user-aborted")
        worker = await queue.work(jobs, job_timeout=0.05, retry_jobs=True, max_tries=3)

    assert seen == [{"user_id": "user-1"}] * 3
    assert worker.jobs_complete == 1
    counts = {user: users(emulator).count(user) for user in users(emulator)}
    assert counts == {
        "user-1": 3,
        "user-failed": 1,
        "user-slow": 1,
        "user-aborted": 3,
    }


@pytest.mark.parametrize(("flush_each", "arrived"), [(False, 0), (True, 2)])
async def test_a_job_waits_for_its_events_only_if_asked(
    *, flush_each: bool, arrived: int, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Nothing is flushed per job, unless with ``flush_each``."""
    jobs = AmplitudeJobs(flush_each=flush_each, flush_interval=600.0, **options)
    seen: list[int] = []

    async def welcome(ctx: Any) -> None:
        # The first batch of a client goes at once, so it is not this one.
        await (await ctx["amplitude"].track("First", user_id="user-1"))
        emulator.reset()
        await ctx["amplitude"].track("Second", user_id="user-1")
        await ctx["amplitude"].track("Third", user_id="user-1")

    async def look(_: Any) -> None:
        seen.append(len(emulator.events))

    async with queue_of(jobs, welcome) as queue:
        await queue.pool.enqueue_job("welcome")
        await queue.work(jobs, after_job_end=look)

    assert seen == [arrived]


@pytest.mark.long
@pytest.mark.parametrize("_", range(3))
async def test_a_thousand_jobs_have_their_own_identities(
    _: int, emulator: Emulator, options: dict[str, Any]
) -> None:
    """Interleaved jobs, their child tasks and threads never cross."""
    jobs = AmplitudeJobs(carry=["user_id"], **options)
    jobs_at_once = Interleaved(JOBS)

    async def work(ctx: Any, job: int) -> None:
        await jobs_at_once.work(ctx["amplitude"], job)

    async with queue_of(jobs, work) as queue:
        for job in range(JOBS):
            with bound(user_id=f"user-{job}"):
                await queue.pool.enqueue_job("work", job)
        worker = await queue.work(jobs, max_jobs=JOBS)

    assert worker.jobs_complete == JOBS
    jobs_at_once.check(emulator)


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "arq", "examples.arq_worker.WorkerSettings"),
        ("examples/arq_worker.py",),
    ],
    ids=["its command line", "alone"],
)
async def test_the_example_delivers_before_it_stops(
    command: tuple[str, ...],
    redis_url: str,
    emulator: Emulator,
    start_worker: Callable[..., Any],
) -> None:
    """SIGTERM ends the example, and every event has the user of its job."""
    async with start_worker("examples/arq_worker.py", "send", REDIS_URL=redis_url) as s:
        await s.ended()
    # A name that has to be looked up, which a process at its exit may not do any more.
    url = emulator.httpapi_url.replace("127.0.0.1", "localhost")
    settings = {"REDIS_URL": redis_url, "AMPLITUDE_SERVER_URL": url}
    async with start_worker(*command, **settings) as worker:
        await worker.wrote("welcomed in", 50)
        # It ends with a CancelledError of its own, whatever it was doing.
        await worker.stop()

    assert {
        event["event_properties"]["language"]: event["user_id"]
        for event in emulator.events
    } == {f"l-{job}": f"user-{job}" for job in range(50)}
