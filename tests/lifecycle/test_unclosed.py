"""A client that nobody shuts down says how many events it takes along."""

import asyncio
import gc
import logging

import pytest

from amplitude_async import Amplitude, AmplitudeError, Delivery, DeliveryResult

__all__: list[str] = []

NOWHERE = "http://127.0.0.1:9/"


def make() -> Amplitude:
    """Make a client that sends nothing."""
    return Amplitude("key", server_url=NOWHERE, trust_env=False, flush_interval=3600.0)


async def track(client: Amplitude, count: int) -> None:
    """Track so many events and leave."""
    for _ in range(count):
        await client.track("e", user_id="user-1")


async def result_of(delivery: Delivery) -> DeliveryResult:
    """Await a handle."""
    return await delivery


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """List the warnings about clients that were left."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "unclosed" in record.getMessage()
    ]


def test_a_loop_that_ends_with_undecided_events(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning with their number when the loop closes, none when it is collected."""
    client = make()
    asyncio.run(track(client, 50))
    (line,) = lines(caplog)

    assert "its event loop ended with 50 undecided events" in line
    with pytest.warns(ResourceWarning, match="50 undelivered"):
        del client
    assert lines(caplog) == [line]


def test_a_client_that_nobody_holds(caplog: pytest.LogCaptureFixture) -> None:
    """It says so when it is collected, and not again when its loop ends."""

    async def main() -> None:
        client = make()
        await track(client, 3)
        with pytest.warns(ResourceWarning, match="3 undelivered"):
            del client

    asyncio.run(main())
    (line,) = lines(caplog)

    assert "nobody holds it any more with 3 undecided events" in line


def test_a_client_that_was_shut_down_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its events have their outcomes, which were told."""

    async def main() -> None:
        client = make()
        await track(client, 3)
        await client.shutdown(0.0)

    asyncio.run(main())
    gc.collect()

    assert lines(caplog) == []


def test_a_client_without_undecided_events_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Python's own warning is enough where nothing is lost."""
    client = make()
    asyncio.run(track(client, 0))
    asyncio.run(client.start())
    with pytest.warns(ResourceWarning, match="0 undelivered"):
        del client

    assert lines(caplog) == []


def test_a_second_loop_is_watched_as_the_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Events go on with the next loop; when that ends too, it is said again."""
    client = make()
    asyncio.run(track(client, 2))
    asyncio.run(track(client, 1))

    assert ["with 2 und" in lines(caplog)[0], "with 3 und" in lines(caplog)[1]] == [
        True,
        True,
    ]
    with pytest.warns(ResourceWarning, match="3 undelivered"):
        del client


def test_a_logger_that_raises_breaks_no_loop() -> None:
    """The loop closes as it would without the client."""

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError(record.msg)

    logger = logging.getLogger("broken")
    logger.addHandler(broken := Broken())
    client = Amplitude("key", server_url=NOWHERE, trust_env=False, logger=logger)
    asyncio.run(track(client, 3))
    asyncio.run(client.shutdown(0.0))
    logger.removeHandler(broken)
    assert client.stats.dropped == 3


def test_a_handle_of_a_closed_loop_is_no_endless_wait() -> None:
    """It says what to do, and once that is done the result comes."""
    client = make()

    async def wait(delivery: Delivery) -> DeliveryResult:
        with pytest.raises(AmplitudeError, match="event loop was closed"):
            await delivery
        await client.flush(0.0)
        waiting = asyncio.ensure_future(result_of(delivery))
        await client.shutdown(0.0)
        return await asyncio.wait_for(waiting, 5.0)

    async def track_one() -> Delivery:
        return await client.track("e", user_id="user-1")

    delivery = asyncio.run(track_one())
    assert asyncio.run(wait(delivery)).destination == "amplitude"
