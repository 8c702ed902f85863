"""User code may raise CancelledError: that is a fault of theirs, not the end of us."""

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    AmplitudeError,
    DeliveryResult,
    DeliveryStatus,
    DestinationPlugin,
    DropReason,
    EnrichmentPlugin,
    Event,
)
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

Connect = Callable[..., Amplitude]
ENDED = 5.0


def give_up() -> None:
    """Raise what a task of user code raises that was cancelled."""
    raise asyncio.CancelledError


async def test_a_callback_that_raises_it(connect: Connect) -> None:
    """Each result is handed over, whatever became of the others."""
    heard: list[DeliveryResult] = []

    def callback(result: DeliveryResult) -> None:
        heard.append(result)
        give_up()

    async with connect(callback=callback) as client:
        for _ in range(100):
            await client.track("e", user_id="user-1")

    assert len(heard) == 100


async def test_a_cancelled_callback_task_is_no_end(connect: Connect) -> None:
    """A shutdown waits for every result, though a host cancels the task meanwhile."""
    heard: list[DeliveryResult] = []

    async def callback(result: DeliveryResult) -> None:
        heard.append(result)
        if len(heard) == 3:
            for task in asyncio.all_tasks():
                if task.get_name().endswith(" callback"):
                    task.cancel()
        await asyncio.sleep(0)

    async with connect(callback=callback) as client:
        for _ in range(10):
            await client.track("e", user_id="user-1")

    assert len(heard) == 10


async def test_a_plugin_that_raises_it(connect: Connect) -> None:
    """The event goes on as it is, and the host's task too."""

    class Broken(EnrichmentPlugin):
        def execute(self, _event: Event) -> None:
            give_up()

        def teardown(self) -> None:
            give_up()

    async with connect(plugins=[Broken()]) as client:
        assert (await (await client.track("e", user_id="user-1"))).ok
        assert (await client.track_nowait("e", user_id="user-1")).ok


async def test_a_setup_that_raises_it(connect: Connect) -> None:
    """`add` says so with an error that does not end the task of the host."""

    class Broken(EnrichmentPlugin):
        def setup(self, _client: Amplitude) -> None:
            give_up()

        def execute(self, event: Event) -> Event:
            return event

    async with connect() as client:
        with pytest.raises(AmplitudeError, match="setup of plugin 'Broken'"):
            await client.add(Broken())


async def test_a_destination_that_raises_it(connect: Connect) -> None:
    """REJECTED, and the worker goes on with the next event."""

    class Broken(DestinationPlugin):
        def execute(self, _event: Event) -> None:
            give_up()

        def flush(self) -> None:
            give_up()

        def shutdown(self) -> None:
            give_up()

    async with connect(plugins=[Broken()]) as client:
        await client.remove("amplitude")
        deliveries = [await client.track("e", user_id="user-1") for _ in range(3)]
        await asyncio.wait_for(client.flush(None), ENDED)

    statuses = [delivery.result and delivery.result.status for delivery in deliveries]
    assert statuses == [DeliveryStatus.REJECTED] * 3


async def test_a_cancelled_worker_comes_back(connect: Connect) -> None:
    """Who flushes without a limit is not left alone with a worker that was killed."""
    begun = asyncio.Event()

    class Slow(DestinationPlugin):
        name = "slow"
        runs = 0

        async def execute(self, _event: Event) -> None:
            self.runs += 1
            if self.runs == 1:
                begun.set()
                await asyncio.Event().wait()

    async with connect(plugins=[Slow()]) as client:
        await client.track("e", user_id="user-1")
        flushing = asyncio.create_task(client.flush(None))
        await begun.wait()
        for task in asyncio.all_tasks():
            if task.get_name() == "amplitude_async slow":
                task.cancel()
        stats = await asyncio.wait_for(flushing, ENDED)

    assert stats.destinations["slow"].delivered == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_passes_through(
    error: type[BaseException],
) -> None:
    """Nothing of ours keeps a host from ending."""

    class Ending(EnrichmentPlugin):
        def execute(self, _event: Event) -> Event:
            raise error

    async def main() -> None:
        client = Amplitude("key", server_url="http://127.0.0.1:9/", plugins=[Ending()])
        try:
            await client.track("e", user_id="user-1")
        finally:
            await client.shutdown(0.0)

    with pytest.raises(error):
        asyncio.run(main())


async def test_nothing_keeps_the_context_of_the_first_caller(connect: Connect) -> None:
    """What a request put into a context variable goes when the request is over."""

    class Request:
        """What a framework binds."""

    current: contextvars.ContextVar[Any] = contextvars.ContextVar("current")
    client = connect(flush_interval=3600.0)
    held: list[weakref.ref[Request]] = []

    async def request() -> None:
        bound = Request()
        held.append(weakref.ref(bound))
        current.set(bound)
        await client.track("e", user_id="user-1")
        await client.flush()
        await client.track("f", user_id="user-1")

    await asyncio.create_task(request())
    await asyncio.sleep(0)  # the loop itself holds what it has just run
    gc.collect()
    assert held[0]() is None

    await client.shutdown()


async def test_a_wait_that_was_cancelled_leaves_nothing_behind(
    emulator: Emulator, connect: Connect
) -> None:
    """Asking one handle again and again with a time limit costs no memory."""
    # Who waits for a handle hastens its request: it must not end before the last wait.
    emulator.faults.add(Fault(delay=float("inf")))
    async with connect(flush_interval=3600.0) as client:
        delivery = await client.track("e", user_id="user-1")
        page = delivery._page  # noqa: SLF001 - where a listener would stay
        assert page is not None
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(delivery, 0.0)
            waiting = asyncio.ensure_future(_wait(delivery))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        assert page.listeners == {}
        await client.shutdown(0.0)
        assert (await delivery).reason is DropReason.SHUTDOWN


async def _wait(delivery: Any) -> Any:
    return await delivery


async def test_a_done_callback_runs_in_the_context_of_who_added_it(
    connect: Connect,
) -> None:
    """As a future's would: the user's callback belongs to the user's request."""
    current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="")
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with connect() as client:
        delivery = await client.track("e", user_id="user-1")
        current.set("request")
        delivery.add_done_callback(lambda _: seen.set_result(current.get()))
        current.set("")
        await delivery

        assert await asyncio.wait_for(seen, ENDED) == "request"


async def test_flush_after_the_newest_event_was_purged(connect: Connect) -> None:
    """A plain destination counts what is undecided, and waits for no one id."""
    release = asyncio.Event()

    class Stuck(DestinationPlugin):
        name = "stuck"

        async def execute(self, _event: Event) -> None:
            await release.wait()

    async with connect(plugins=[Stuck()]) as client:
        await client.remove("amplitude")
        await client.track("e", user_id="user-1")
        await asyncio.sleep(0)
        await client.track("e", user_id="user-2")
        await client.purge("user-2")
        flushing = asyncio.create_task(client.flush(None))
        await asyncio.sleep(0.01)
        assert not flushing.done()
        release.set()
        stats = await asyncio.wait_for(flushing, ENDED)

    assert stats.destinations["stuck"].delivered == 1
