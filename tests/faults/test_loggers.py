"""What a user's logging does harms no event, and one trouble is one line."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator, Fault

__all__: list[str] = []

Connect = Callable[..., Amplitude]
EVENTS = 10
FAULTS = [ZeroDivisionError(), asyncio.CancelledError(), RecursionError()]


class Raising(logging.Handler):
    """A handler that raises."""

    def __init__(self, fault: BaseException) -> None:
        super().__init__()
        self._fault = fault

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Raise, as few handlers do."""
        raise self._fault


class Watching(logging.Handler):
    """A handler that looks at the account of a client."""

    def __init__(self) -> None:
        super().__init__()
        self.client: Amplitude | None = None
        self.seen: list[bool] = []

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        """Note whether it adds up just now."""
        if self.client is not None:
            self.seen.append(self.client.stats.balanced)


class Refusing(logging.Logger):
    """A logger that raises before there is a record."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: ARG002, N802 - logging's own
        """Raise."""
        raise ZeroDivisionError


class Loud(logging.Logger):
    """A logger that nobody else knows and nothing keeps quiet."""


def logging_to(handler: logging.Handler) -> logging.Logger:
    """Give a logger of one's own with this handler only."""
    logger = Loud("amplitude_async.of_the_user", logging.DEBUG)
    logger.addHandler(handler)
    return logger


async def track_ten(client: Amplitude) -> list[Any]:
    """Track ten events; returns how they ended."""
    deliveries = [await client.track("e", user_id=f"user-{n}") for n in range(EVENTS)]
    async with asyncio.timeout(10.0):
        return [await delivery for delivery in deliveries]


TROUBLE = [
    Fault.server_error(count=2),
    Fault.throttle(["user-1"]),
    Fault(400, body={"error": "x", "events_with_invalid_fields": {"time": [0]}}),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_handler_that_raises_costs_no_event(
    fault: BaseException, connect: Connect, emulator: Emulator
) -> None:
    """Each event comes to its end; the account adds up."""
    emulator.faults.add(*TROUBLE)
    client = connect(logger=logging_to(Raising(fault)))
    ended = await track_ten(client)
    await client.track("e")  # nobody's, and rejected at the door

    assert len(ended) == EVENTS
    assert client.stats.balanced
    assert (client.stats.delivered, client.stats.rejected) == (EVENTS - 1, 2)
    await client.shutdown()


async def test_a_logger_that_raises_costs_no_event(
    connect: Connect, emulator: Emulator
) -> None:
    """Not even the question whether DEBUG is on is safe."""
    emulator.faults.add(*TROUBLE)
    client = connect(logger=Refusing("of_the_user"))
    ended = await track_ten(client)

    assert sum(result.ok for result in ended) == EVENTS - 1


@pytest.mark.parametrize(
    "faults",
    [
        TROUBLE,
        [Fault(401, count=None)],
        [Fault.too_large(0)],
        [Fault.quota(["user-3"])],
    ],
    ids=["trouble", "refused", "too large", "quota"],
)
async def test_a_handler_that_reads_the_account_sees_it_add_up(
    faults: list[Fault], connect: Connect, emulator: Emulator
) -> None:
    """What is logged is written down already."""
    emulator.faults.add(*faults)
    watching = Watching()
    watching.client = client = connect(logger=logging_to(watching))
    await track_ten(client)

    assert watching.seen
    assert all(watching.seen)


@pytest.mark.parametrize("code", [401, 404, 405])
async def test_a_refusal_is_one_line_with_the_number_of_events(
    code: int,
    connect: Connect,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two lines for one refusal look like two troubles."""
    emulator.faults.add(Fault(code, count=None))
    client = connect()
    ended = await track_ten(client)
    again = await track_ten(client)

    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(errors) == 1
    assert errors[0].startswith(f"amplitude: the server refuses us ({code}")
    assert errors[0].endswith(f"[refused x{EVENTS}]")
    assert {result.code for result in ended + again} == {code}
    # Who was in the request was answered; who came later never went out.
    assert {result.attempts for result in ended} == {1}
    assert {result.attempts for result in again} == {0}
