"""A Celery worker has one client per process, and each task its own bound fields."""

import logging
import runpy
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from amplitude_async import bind, bindings, bound
from amplitude_async.emulator import Emulator

pytest.importorskip("celery")

from celery import Celery, Task, chain, group  # type: ignore[import-untyped]
from celery.contrib.testing import worker as testing  # type: ignore[import-untyped]
from celery.signals import (  # type: ignore[import-untyped]
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
)

from amplitude_async.integrations.carrier import HEADER
from amplitude_async.integrations.celery import AmplitudeTasks
from amplitude_async.sync import SyncAmplitude

__all__: list[str] = []

TASKS = 1000
THREADS = 25

# What Celery itself does at its start and end.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning:celery"),
    pytest.mark.filterwarnings("ignore::ResourceWarning:kombu"),
]


@pytest.fixture
def server(background_emulator: Emulator) -> Emulator:
    """Return an emulator that runs in a thread, beside a synchronous test."""
    return background_emulator


@pytest.fixture
def options(server: Emulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the options of a client of the emulator, whose key is in a variable."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", "key")
    return {"server_url": server.httpapi_url, "trust_env": False}


@pytest.fixture
def tasks() -> Iterator[Callable[..., AmplitudeTasks]]:
    """Return a function that makes `AmplitudeTasks`, which leave Celery at the end."""
    made: list[AmplitudeTasks] = []

    def make(*arguments: Any, **options: Any) -> AmplitudeTasks:
        made.append(AmplitudeTasks(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.disconnect()


@pytest.fixture
def app() -> Celery:
    """Return an application whose broker is in memory."""
    name = uuid.uuid4().hex
    return Celery(
        name,
        broker=f"memory://{name}",
        set_as_current=False,
        task_default_queue=name,
        broker_transport_options={"polling_interval": 0.01},
        worker_hijack_root_logger=False,
    )


@contextmanager
def working(app: Celery, pool: str = "threads", concurrency: int = 4) -> Iterator[None]:
    """Run a worker in a thread of this process, and end it as SIGTERM would."""
    level = logging.root.level
    try:
        with testing.start_worker(
            app, pool=pool, concurrency=concurrency, perform_ping_check=False
        ):
            yield
    finally:
        # It sets the level for the whole process, and so for the tests behind it.
        logging.root.setLevel(level)
    # Celery's helper ends a worker as SIGQUIT would: then it says nothing to anybody.
    worker_shutdown.send(sender=None)


def task_of(app: Celery, **options: Any) -> Callable[[Callable[..., None]], Any]:
    """Make a decorator of tasks of this application, and of no other."""
    decorator: Callable[[Callable[..., None]], Any] = app.task(shared=False, **options)
    return decorator


def users(emulator: Emulator) -> list[str | None]:
    """Return the user of each event that has arrived."""
    return [event.get("user_id") for event in emulator.events]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_the_client_lives_as_long_as_the_worker(
    pool: str, server: Emulator, options: Any, app: Celery, tasks: Any
) -> None:
    """All tasks have the same client, and the end of the worker drains it."""
    amplitude = tasks(**options)
    seen: SimpleQueue[SyncAmplitude] = SimpleQueue()

    @task_of(app)
    def welcome(user: str) -> None:
        amplitude.client.track("Welcomed", user_id=user)
        seen.put(amplitude.client)

    with working(app, pool):
        welcome.delay("user-1")
        welcome.delay("user-2")
        first, second = (seen.get(timeout=10) for _ in range(2))

    assert sorted(map(str, users(server))) == ["user-1", "user-2"]
    assert first is second


def test_a_client_of_the_application_is_left_open(
    server: Emulator, options: Any, app: Celery, tasks: Any
) -> None:
    """Whoever hands a client over shuts it down."""
    done: SimpleQueue[None] = SimpleQueue()
    with SyncAmplitude("key", **options) as client:
        amplitude = tasks(client)

        @task_of(app)
        def work() -> None:
            assert amplitude.client is client
            done.put(None)

        with working(app):
            work.delay()
            done.get(timeout=10)
        client.track("Still Open", user_id="user-1")

    assert users(server) == ["user-1"]


def test_what_is_bound_travels_where_both_sides_want_it(
    server: Emulator, options: Any, app: Celery, tasks: Any
) -> None:
    """Retries, chains and groups have the user of the first sender."""
    amplitude = tasks(carry=True, **options)
    done: SimpleQueue[str] = SimpleQueue()

    @task_of(app, bind=True, max_retries=2)
    def first(self: Task) -> None:
        amplitude.client.track(f"First {self.request.retries}")
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        bind(event_properties={"job": "first"})

    @task_of(app)
    def later(name: str) -> None:
        amplitude.client.track(name)
        done.put(name)

    with working(app):
        with bound(user_id="user-1", ip="192.0.2.1"):
            members = group(later.si("Grouped a"), later.si("Grouped b"))
            chain(first.si(), later.si("Chained")).delay()
            members.delay()
            assert bindings() == {"user_id": "user-1", "ip": "192.0.2.1"}
        finished = {done.get(timeout=10) for _ in range(3)}

    assert finished == {"Chained", "Grouped a", "Grouped b"}
    found = {e["event_type"]: e.get("event_properties") for e in server.events}
    assert found == {
        "First 0": None,
        "First 1": None,
        "First 2": None,
        "Chained": {"job": "first"},
        "Grouped a": None,
        "Grouped b": None,
    }
    assert set(users(server)) == {"user-1"}
    assert all(event.get("ip") != "192.0.2.1" for event in server.events)


def test_nothing_travels_unless_asked(options: Any, app: Celery, tasks: Any) -> None:
    """Without carry, a task has nothing of its sender."""
    tasks(**options)
    seen: SimpleQueue[Any] = SimpleQueue()

    @task_of(app)
    def look() -> None:
        seen.put(bindings())

    with working(app), bound(user_id="user-1"):
        look.delay()
        assert seen.get(timeout=10) == {}
        # Run where it is called, it sees no more.
        look.apply()
        assert seen.get(timeout=10) == {}


def test_an_eager_task_has_what_a_message_would_have(
    options: Any, app: Celery, tasks: Any
) -> None:
    """In a test that runs tasks at once, identity arrives as it does in a worker."""
    tasks(carry=["user_id"], **options)
    seen: list[Any] = []

    @task_of(app)
    def inner() -> None:
        seen.append(bindings())
        bind(user_id="user-2")

    @task_of(app)
    def look() -> None:
        inner.apply()
        seen.append(bindings())

    app.conf.task_always_eager = True
    with bound(user_id="user-1", device_id="device-1"):
        look.delay()
        assert bindings() == {"user_id": "user-1", "device_id": "device-1"}

    assert seen == [{"user_id": "user-1"}] * 2


def test_a_forged_header_breaks_no_task(options: Any, app: Celery, tasks: Any) -> None:
    """The task runs without identity, whatever the header holds."""
    tasks(carry=True, **options)
    seen: SimpleQueue[Any] = SimpleQueue()

    @task_of(app)
    def look() -> None:
        seen.put(bindings())

    headers = ["{", '{"v":2}', 7, None, ["x"] * 5000, {"v": 1}]
    with working(app):
        for header in headers:
            look.apply_async(headers={HEADER: header})
        assert [seen.get(timeout=10) for _ in headers] == [{}] * len(headers)


@pytest.mark.parametrize("nested", [False, True])
def test_headers_of_the_sender_stay_as_they_are(
    nested: bool, options: Any, app: Celery, tasks: Any
) -> None:
    """The carrier is one more header, wherever Celery puts those of the caller."""
    tasks(carry=True, **options)
    seen: SimpleQueue[Any] = SimpleQueue()
    headers: dict[str, Any] = {"team": "billing"}
    if nested:
        headers = {"headers": headers}
    before = repr(headers)

    @task_of(app, bind=True)
    def look(self: Task) -> None:
        seen.put((self.request.headers["team"], bindings()))

    with working(app), bound(user_id="user-1"):
        look.apply_async(headers=headers)
        assert seen.get(timeout=10) == ("billing", {"user_id": "user-1"})

    assert repr(headers) == before


def test_a_task_that_fails_ends_its_scope(
    server: Emulator, options: Any, app: Celery, tasks: Any
) -> None:
    """In one thread, what a failed task has bound is gone for the next."""
    amplitude = tasks(**options)
    seen: SimpleQueue[Any] = SimpleQueue()

    @task_of(app)
    def fail(user: str) -> None:
        seen.put(bindings())
        bind(user_id=user)
        amplitude.client.track("Failed")
        raise LookupError

    with working(app, concurrency=1):
        for user in ("user-1", "user-2", "user-3"):
            fail.delay(user)
        found = [seen.get(timeout=10) for _ in range(3)]

    assert found == [{}] * 3
    assert users(server) == ["user-1", "user-2", "user-3"]


@pytest.mark.parametrize(("flush_each", "arrived"), [(False, 0), (True, 2)])
def test_a_task_waits_for_its_events_only_if_asked(
    *,
    flush_each: bool,
    arrived: int,
    server: Emulator,
    options: Any,
    app: Celery,
    tasks: Any,
) -> None:
    """Nothing is flushed per task, unless with ``flush_each``."""
    amplitude = tasks(flush_each=flush_each, flush_interval=600.0, **options)
    seen: SimpleQueue[int] = SimpleQueue()

    @task_of(app)
    def welcome() -> None:
        # The first batch of a client goes at once, so it is not this one.
        amplitude.client.track("First", user_id="user-1").result(10)
        server.reset()
        amplitude.client.track("Second", user_id="user-1")
        amplitude.client.track("Third", user_id="user-1")

    @task_of(app)
    def look() -> None:
        seen.put(len(server.events))

    with working(app, concurrency=1):
        welcome.delay()
        look.delay()
        assert seen.get(timeout=10) == arrived


@pytest.mark.long
@pytest.mark.parametrize("_", range(3))
def test_a_thousand_tasks_have_their_own_identities(
    _: int, server: Emulator, options: Any, app: Celery, tasks: Any
) -> None:
    """Tasks that run in threads side by side never cross."""
    amplitude = tasks(carry=["user_id"], **options)
    gate = threading.Barrier(THREADS)
    done: SimpleQueue[int] = SimpleQueue()

    @task_of(app)
    def work(task: int) -> None:
        amplitude.client.track("Carried", event_properties={"task": task})
        bind(device_id=f"device-{task}")
        gate.wait(timeout=20)
        amplitude.client.track("Bound", event_properties={"task": task})
        done.put(task)

    with working(app, concurrency=THREADS):
        for task in range(TASKS):
            with bound(user_id=f"user-{task}"):
                work.delay(task)
        finished = {done.get(timeout=20) for _ in range(TASKS)}

    assert finished == set(range(TASKS))
    assert len(server.events) == 2 * TASKS
    for event in server.events:
        task = event["event_properties"]["task"]
        assert event["user_id"] == f"user-{task}"
        if event["event_type"] == "Bound":
            assert event["device_id"] == f"device-{task}"


def test_the_parent_of_a_pool_has_no_client(
    monkeypatch: pytest.MonkeyPatch, server: Emulator, options: Any, tasks: Any
) -> None:
    """A client begins and ends with a process of the pool, and not at import."""
    monkeypatch.delenv("AMPLITUDE_API_KEY")
    amplitude = tasks(**options)  # would raise if it made one
    monkeypatch.setenv("AMPLITUDE_API_KEY", "key")

    worker_process_init.send(sender=None)
    client = amplitude.client
    client.track("Worked", user_id="user-1")
    worker_process_shutdown.send(sender=None, pid=1, exitcode=0)

    assert users(server) == ["user-1"]
    assert client.stats.delivered == 1


POOLS = {
    "prefork": ("-P", "prefork", "-c", "2"),
    "prefork, recycled": ("-P", "prefork", "-c", "2", "--max-tasks-per-child", "7"),
    "threads": ("-P", "threads", "-c", "4"),
    "solo": ("-P", "solo"),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
async def test_the_example_delivers_before_it_stops(
    pool: tuple[str, ...],
    tmp_path: Path,
    emulator: Emulator,
    start_worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGTERM ends its processes, and every event has the user of its task."""
    monkeypatch.setenv("CELERY_FOLDER", str(tmp_path))
    monkeypatch.delenv("AMPLITUDE_API_KEY", raising=False)
    example = runpy.run_path("examples/celery_worker.py", run_name="celery_worker")
    try:
        for task in range(50):
            with bound(user_id=f"user-{task}"):
                example["welcome"].delay(f"l-{task}")
    finally:
        example["amplitude"].disconnect()
        example["app"].close()

    command = ("-m", "celery", "-A", "examples.celery_worker", "worker", *pool)
    async with start_worker(*command) as worker:
        await worker.wrote("welcomed in", 50)
        code = await worker.stop()

    assert code == 0, worker.log
    found = [
        (event["event_properties"]["language"], event["user_id"])
        for event in emulator.events
    ]
    assert Counter(found) == {(f"l-{n}", f"user-{n}"): 1 for n in range(50)}
