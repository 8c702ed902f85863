"""What user code raises may be of any class and have no words: it ends nothing."""

import asyncio
from collections.abc import Callable

import pytest

from amplitude_async import (
    Amplitude,
    DeliveryResult,
    DeliveryStatus,
    DestinationPlugin,
    DropReason,
    EnrichmentPlugin,
    Event,
)

__all__: list[str] = []

Connect = Callable[..., Amplitude]


class Speechless(Exception):  # noqa: N818 - what it is matters, not its name
    """An error whose text cannot be made, as of a record that is gone."""

    def __str__(self) -> str:
        msg = "no words"
        raise RuntimeError(msg)

    __repr__ = __str__


class Beyond(BaseException):
    """An error outside the tree of ordinary ones, as test tools and others have."""


ERRORS = pytest.mark.parametrize("error", [Speechless, Beyond])


class Raising(DestinationPlugin):
    """Takes no event."""

    name = "raising"

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.seen = 0

    def execute(self, event: Event) -> None:  # noqa: ARG002
        """Raise."""
        self.seen += 1
        raise self.error


class Scrubber(EnrichmentPlugin):
    """Fails at each event."""

    name = "scrubber"

    def __init__(self, error: type[BaseException], on_error: str = "keep") -> None:
        self.error = error
        self.on_error = on_error  # type: ignore[assignment]

    def execute(self, event: Event) -> Event:  # noqa: ARG002
        """Raise."""
        raise self.error


@ERRORS
async def test_sending_goes_on_whatever_a_callback_raises(
    connect: Connect, error: type[BaseException]
) -> None:
    """Each result is told, though more than half of the places were taken."""
    heard = 0

    def callback(_: DeliveryResult) -> None:
        nonlocal heard
        heard += 1
        raise error

    async with connect(
        callback=callback, max_storage_capacity=100, overflow_timeout=10.0
    ) as client:
        for number in range(300):
            await client.track("e", user_id=f"user-{number}")

    assert heard == client.stats.delivered == 300


async def test_a_callback_that_raises_what_has_no_words(connect: Connect) -> None:
    """The next result comes by itself, and not only with the next event."""
    heard: list[DeliveryResult] = []

    def callback(result: DeliveryResult) -> None:
        heard.append(result)
        raise Speechless

    async with connect(callback=callback) as client:
        for _ in range(20):
            await client.track("e", user_id="user-1")
        await client.flush()
        await asyncio.sleep(0.1)
        assert len(heard) == 20


@ERRORS
async def test_a_plugin(error: type[BaseException], connect: Connect) -> None:
    """The host hears nothing of it, and the event goes on."""
    async with connect(plugins=[Scrubber(error)]) as client:
        result = await (await client.track("e", user_id="user-1"))

    assert result.ok


@ERRORS
async def test_a_scrubber(error: type[BaseException], connect: Connect) -> None:
    """Its event is dropped, with a message that names plugin and error."""
    async with connect(plugins=[Scrubber(error, "drop")]) as client:
        result = await (await client.track("e", user_id="user-1"))

    assert result.reason is DropReason.PLUGIN
    assert error.__name__ in result.message


@ERRORS
async def test_a_plain_destination(
    error: type[BaseException], connect: Connect
) -> None:
    """It sees each event once, and each is REJECTED."""
    plugin = Raising(error)
    async with connect(plugins=[plugin]) as client:
        for _ in range(5):
            await client.track("e", user_id="user-1")
        stats = await client.flush()

    account = stats.destinations["raising"]
    assert (plugin.seen, account.rejected, account.pending) == (5, 5, 0)


async def test_a_plugin_in_a_task_that_is_being_cancelled(connect: Connect) -> None:
    """A handler that tracks its own end is spared the plugin's fault."""
    results: list[DeliveryResult] = []

    async with connect(plugins=[Scrubber(ValueError)]) as client:

        async def handler() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                results.append(await (await client.track("e", user_id="user-1")))

        task = asyncio.create_task(handler())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [result.status for result in results] == [DeliveryStatus.DELIVERED]
