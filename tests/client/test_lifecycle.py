"""The life of a client: start, flush, shutdown, event loops, forks and forgetting."""

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import amplitude_async
from amplitude_async import (
    Amplitude,
    AmplitudeError,
    ClientClosedError,
    ConfigurationError,
    Delivery,
    DeliveryResult,
    DestinationPlugin,
    DropReason,
    EnrichmentPlugin,
    Event,
    Stats,
)
from amplitude_async.client.life import State
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

Connect = Callable[..., Amplitude]


@contextlib.contextmanager
def emulator_elsewhere() -> Iterator[Emulator]:
    """Run an emulator on a thread of its own, for tests that have several loops."""
    started, stop = threading.Event(), asyncio.Event()
    found: list[tuple[Emulator, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with Emulator() as emulator:
            found.append((emulator, asyncio.get_running_loop()))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(10)
    emulator, loop = found[0]
    try:
        yield emulator
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


# --- Start ---


def test_construction_needs_no_loop() -> None:
    """A client can be a global of a module."""
    assert repr(Amplitude("key")).startswith("<Amplitude new url='https://api2.")


async def test_the_first_verb_starts_the_client(
    connect: Connect, emulator: Emulator
) -> None:
    """Without `async with` the first verb starts and shutdown ends it."""
    client = connect()
    await client.track("e", user_id="user-1")
    stats = await client.shutdown()

    assert (stats.delivered, stats.pending) == (1, 0)
    assert emulator.stats.events_ingested == 1


async def test_many_first_verbs_start_it_once(connect: Connect) -> None:
    """Verbs that meet in the start all wait for it; plugins are set up once."""
    setups: list[object] = []

    class Slow(EnrichmentPlugin):
        async def setup(self, client: Amplitude) -> None:
            await asyncio.sleep(0.001)
            setups.append(client)

        def execute(self, event: Event) -> Event:
            event.app_version = "1"
            return event

    client = connect(plugins=[Slow()])
    handles = await asyncio.gather(
        *(client.track("e", user_id="user-1") for _ in range(10))
    )

    assert setups == [client]
    assert {(await one).event.app_version for one in handles} == {"1"}


async def test_track_nowait_wants_a_started_client(connect: Connect) -> None:
    """Without a start there is nothing that would send: the error says what to do."""
    client = connect()
    with pytest.raises(AmplitudeError, match=r"await client.start\(\)"):
        client.track_nowait("e", user_id="user-1")
    await client.start()
    await client.start()
    assert (await client.track_nowait("e", user_id="user-1")).ok


async def test_flush_and_purge_start_the_client_too(connect: Connect) -> None:
    """Each verb may be the first."""
    assert (await connect().flush()).pending == 0
    assert await connect().purge() == 0


# --- Shutdown ---


async def test_shutdown_drains(connect: Connect, emulator: Emulator) -> None:
    """What waits is sent before the client closes, without the linger."""
    async with connect(flush_interval=3600.0) as client:
        handles = [await client.track("e", user_id=f"user-{n}") for n in range(500)]

    assert [one.result.ok for one in handles if one.result] == [True] * 500
    assert emulator.stats.events_ingested == 500


async def test_shutdown_is_for_good(connect: Connect) -> None:
    """Repeating it does nothing; starting again or adding raises."""
    client = connect()
    async with client:
        await client.track("e", user_id="user-1")
    stats = client.stats

    assert await client.shutdown() == stats
    assert await client.flush() == stats
    with pytest.raises(ClientClosedError, match="construct a new one"):
        await client.start()
    with pytest.raises(ClientClosedError):
        async with client:
            pytest.fail("it started again")
    with pytest.raises(ClientClosedError, match="before shutdown"):
        await client.add(EnrichmentPlugin())


async def test_shutdown_of_a_client_that_never_started(connect: Connect) -> None:
    """There is nothing to do, and it is closed then."""
    client = connect()
    assert (await client.shutdown()).accepted == 0
    with pytest.raises(ClientClosedError):
        await client.start()


async def test_a_second_shutdown_joins_the_first(
    connect: Connect, emulator: Emulator
) -> None:
    """Cancelling who waits does not stop the drain; another call waits for its end."""
    emulator.faults.add(Fault(delay=0.02))
    client = connect()
    delivery = await client.track("e", user_id="user-1")
    first = asyncio.create_task(client.shutdown())
    second = asyncio.create_task(client.shutdown())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).delivered == 1
    assert first.cancelled()
    assert (await delivery).ok


async def test_shutdown_at_the_deadline(connect: Connect, emulator: Emulator) -> None:
    """A server that never answers costs the deadline and no more.

    What is left says DROPPED shutdown; the request that was cut off says so.
    """
    emulator.faults.add(Fault(delay=float("inf"), count=None))
    client = connect()
    delivery = await client.track("e", user_id="user-1")
    stats = await client.shutdown(0.05)
    result = await delivery

    assert stats.dropped_by_reason == {DropReason.SHUTDOWN: 1}
    assert result.reason is DropReason.SHUTDOWN
    assert "may have been delivered" in result.message


async def test_shutdown_from_a_callback(connect: Connect) -> None:
    """The callback that shuts down is not waited for by its own shutdown."""
    ended = asyncio.Event()

    async def callback(result: DeliveryResult) -> None:
        await client.shutdown()
        ended.set()

    client = connect(callback=callback)
    await client.track("e", user_id="user-1")
    await asyncio.wait_for(ended.wait(), 2)

    assert (await client.shutdown()).delivered == 1


async def test_joining_a_shutdown_from_a_callback(connect: Connect) -> None:
    """A callback that calls shutdown while one waits for it comes back at once."""
    ended: list[bool] = []

    async def callback(result: DeliveryResult) -> None:
        await client.shutdown()
        ended.append(True)

    async with connect(callback=callback) as client:
        await client.track("e", user_id="user-1")

    assert ended == [True]


async def test_a_given_session_stays_open(connect: Connect, emulator: Emulator) -> None:
    """What the caller opened, the caller closes."""
    async with aiohttp.ClientSession() as session:
        async with connect(session=session) as client:
            assert (await (await client.track("e", user_id="user-1"))).ok
        assert not session.closed
        async with connect(session=session) as client:
            assert (await (await client.track("e", user_id="user-1"))).ok

    assert emulator.stats.events_ingested == 2


def test_something_else_than_a_session_is_refused() -> None:
    """At once, and by name."""
    wrong: Any = "https://example.invalid"
    with pytest.raises(ConfigurationError, match="must be an aiohttp"):
        Amplitude("key", session=wrong)


async def test_an_exception_in_the_block_does_not_lose_events(
    connect: Connect, emulator: Emulator
) -> None:
    """The host's exception passes through after the drain."""

    async def fail() -> None:
        async with connect() as client:
            await client.track("e", user_id="user-1")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()

    assert emulator.stats.events_ingested == 1


# --- Event loops ---


def test_a_second_asyncio_run() -> None:
    """Events that waited when the first loop closed are sent from the second."""

    async def first() -> None:
        await (await client.track("sent", user_id="user-1"))
        await client.track("waiting", user_id="user-1")

    async def second() -> None:
        await client.track("e", user_id="user-1")
        await client.shutdown()

    with emulator_elsewhere() as emulator:
        client = Amplitude("key", server_url=emulator.httpapi_url)
        with warnings.catch_warnings():
            # aiohttp's, for the session that nobody could close any more.
            warnings.simplefilter("ignore", ResourceWarning)
            asyncio.run(first())
            asyncio.run(second())
            gc.collect()
        assert [event["event_type"] for event in emulator.events] == [
            "sent",
            "waiting",
            "e",
        ]
    assert client.stats.balanced
    assert client.stats.delivered == 3


def test_a_second_asyncio_run_with_a_plain_destination() -> None:
    """The event that was with the plugin when the loop closed is done again."""
    seen: list[str] = []

    class Slow(DestinationPlugin):
        first = True

        async def execute(self, event: Event) -> None:
            if self.first:
                self.first = False
                await asyncio.Event().wait()
            seen.append(event.event_type)

    async def first() -> None:
        await client.remove("amplitude")
        for name in ("a", "b"):
            await client.track(name, user_id="user-1")
        await asyncio.sleep(0)

    async def second() -> None:
        await client.track("c", user_id="user-1")
        await client.shutdown(None)

    client = Amplitude("key", plugins=[Slow()])
    asyncio.run(first())
    assert client.stats.destinations["Slow"].pending == 2
    asyncio.run(second())

    assert seen == ["a", "b", "c"]
    assert client.stats.destinations["Slow"].delivered == 3


def test_a_second_asyncio_run_with_a_given_session() -> None:
    """The session went with its loop: the error says what to do."""

    async def first() -> Amplitude:
        async with aiohttp.ClientSession() as session:
            client = Amplitude("key", session=session)
            await client.start()
            return client

    client = asyncio.run(first())
    with pytest.raises(AmplitudeError, match="construct a new client"):
        asyncio.run(_coroutine(lambda: client.track("e", user_id="user-1")))
    _forget(client)


def test_another_loop_that_is_alive() -> None:
    """One client serves one loop: the error says so."""
    client = Amplitude("key")
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(client.start())
        with pytest.raises(AmplitudeError, match="one client per loop"):
            asyncio.run(_coroutine(lambda: client.track("e", user_id="user-1")))
        with pytest.raises(AmplitudeError, match="one client per loop"):
            asyncio.run(_coroutine(client.flush))
        loop.run_until_complete(client.shutdown())
    finally:
        loop.close()


def test_those_who_listened_on_a_closed_loop() -> None:
    """They are past; the events they asked about go on, and the account adds up."""
    client = Amplitude("key", server_url="http://127.0.0.1:9/", trust_env=False)
    heard: list[Delivery] = []

    async def first() -> list[Delivery]:
        handles = [await client.track("e", user_id="user-1") for _ in range(3)]
        handles[0].add_done_callback(heard.append)
        return handles

    async def second() -> Stats:
        assert await client.purge() == 3
        return await client.shutdown()

    handles = asyncio.run(first())
    stats = asyncio.run(second())

    assert (stats.dropped, stats.balanced) == (3, True)
    assert all(handle.done for handle in handles)
    assert heard == []


async def _coroutine(call: Callable[[], Any]) -> Any:
    return await call()


def _forget(client: Amplitude) -> None:
    """Let a client go that cannot be shut down."""
    asyncio.run(_coroutine(lambda: asyncio.sleep(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        client.__dict__["_state"] = State.NEW


def test_an_unclosed_client_warns() -> None:
    """Forgetting shutdown is a ResourceWarning that says how many events are left."""

    async def use() -> None:
        client = Amplitude("key", server_url="http://127.0.0.1:9/")
        for _ in range(3):
            await client.track("e", user_id="user-1")

    def forget() -> None:
        asyncio.run(use())
        gc.collect()

    with pytest.warns(ResourceWarning, match="3 undelivered events") as caught:
        forget()

    assert "await shutdown()" in str(caught[0].message)


async def test_closed_and_unused_clients_do_not_warn(connect: Connect) -> None:
    """Only a client that is running has something to lose."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Amplitude("key")
        async with Amplitude("key"):
            pass
        gc.collect()

    assert [one for one in caught if "unclosed client" in str(one.message)] == []


# --- Fork ---

FORK = """
    import asyncio, os, sys
    from amplitude_async import Amplitude, DestinationPlugin

    class Memory(DestinationPlugin):
        name = "memory"
        pause = 0.001
        async def execute(self, event):
            await asyncio.sleep(self.pause)

    url, order, kind = sys.argv[1:]
    client = Amplitude("key", server_url=url, plugins=[Memory()])

    def child(inherited):
        async def live():
            if order == "handle first":
                first = await asyncio.wait_for(inherited.wait(), 5)
            delivery = await client.track("child", user_id="user-1")
            result = await delivery
            stats = await client.shutdown()
            reason = (await inherited).reason
            memory = stats.destinations["memory"]
            assert stats.balanced and memory.balanced
            assert memory.delivered == memory.accepted == 1
            if kind == "plain":
                stats = memory
            print("child", result.status, reason, stats.accepted, stats.delivered)

        asyncio.run(live())
        sys.stdout.flush()
        os._exit(0)

    class Handle:
        def __init__(self, delivery):
            self.delivery = delivery
        async def wait(self):
            return await self.delivery
        def __await__(self):
            return self.delivery.__await__()

    async def parent():
        if kind == "plain":
            await client.remove("amplitude")
        sent = await client.track("sent", user_id="user-1")
        await sent
        inherited = await client.track("parent", user_id="user-1")
        pid = os.fork()
        if pid == 0:
            asyncio._set_running_loop(None)
            child(Handle(inherited))
        loop = asyncio.get_running_loop()
        _, status = await loop.run_in_executor(None, os.waitpid, pid, 0)
        assert status == 0, status
        result = await inherited
        stats = await client.shutdown()
        if kind == "plain":
            stats = stats.destinations["memory"]
        print("parent", result.status, stats.accepted, stats.delivered)

    asyncio.run(parent())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("kind", ["engine", "plain"])
@pytest.mark.parametrize("order", ["verb first", "handle first"])
async def test_fork_after_use(order: str, kind: str, emulator: Emulator) -> None:
    """A child starts empty and sends its own events; the parent notices nothing.

    A handle that the child inherited says that the parent has the event.
    """
    root = str(Path(amplitude_async.__file__).parent.parent)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(FORK),
        emulator.httpapi_url,
        order,
        kind,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = await asyncio.wait_for(process.communicate(), 15)

    assert stdout.decode().splitlines() == [
        "child delivered fork 1 1",
        "parent delivered 2 2",
    ], stderr.decode()
    kinds = sorted(event["event_type"] for event in emulator.events)
    assert kinds == (["child", "parent", "sent"] if kind == "engine" else [])
    assert emulator.stats.duplicates == 0
