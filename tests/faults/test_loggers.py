"""What a user's logging does harms no event, and one trouble is one line."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from amplitude_async import Amplitude, DestinationPlugin
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


NAMED = {
    "400": Fault(
        400,
        body={
            "error": "user-1 and 'device-1' sent bad fields",
            "events_with_invalid_fields": {"user-2": [1]},
        },
        count=2,
    ),
    "429": Fault(429, body={"error": "user-3: slow down"}, count=2),
    "quota": Fault(
        429, body={"error": "user-3", "exceeded_daily_quota_users": {"user-3": 1}}
    ),
    "403": Fault(403, body="blocked: user-4", count=3),
    "500": Fault(500, body="no user-5 in (user-6)", count=None),
    "401": Fault(401, body="user-7?", count=None),
}
DIRTY: list[dict[str, Any]] = [
    {"user_id": "none"},
    {"user_id": "abc"},
    {"user_id": "secret-user", "device_id": "dev"},
    {"user_id": "secret-user", "price": {"secret-key": None, "other": 4711.5}},
    {"user_id": ["secret-user"]},
    {"user_id": "secret-user", "time": "secret-time"},
    {"user_id": "secret-user", "event_properties": {"a": float("nan")}},
    {"user_id": "secret-user", "event_properties": {"a": b"secret-bytes"}},
]


@pytest.mark.parametrize("name", NAMED)
async def test_no_id_is_logged_where_the_server_names_it(
    name: str,
    connect: Connect,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line above DEBUG says what happened, and not to whom."""
    emulator.faults.add(NAMED[name])
    client = connect(flush_max_retries=2)
    await track_ten(client)
    await client.shutdown(1.0)

    loud = [r.getMessage() for r in caplog.records if r.levelno > logging.DEBUG]
    assert len(loud) > 1
    assert not [line for line in loud if "user-" in line]


async def test_no_value_is_logged_where_the_door_refuses_it(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """The result names field and value; the log names the field."""

    async def careless(event: Any) -> Any:
        event.user_id = {"id": event.user_id}
        return event

    client = connect()
    for fields in DIRTY:
        await client.track("e", **fields)
    # One line a minute for each cause: a new client tells of each.
    for fields in DIRTY:
        await connect().track("e", **fields)
    await connect(plugins=[careless]).track("e", user_id="secret-user")

    loud = [r.getMessage() + str(r.exc_text) for r in caplog.records if r.levelno > 10]
    assert len(loud) > len(DIRTY)
    for value in ("secret", "'abc'", "'dev'", "'none'", "4711"):
        assert not [line for line in loud if value in line]


class Model(BaseModel):
    """What a plugin might make of an event."""

    number: int


def fail(how: str, event: Any) -> None:
    """Raise as user code does that was given a value it does not like."""
    try:
        Model(number=event.event_properties)
    except ValidationError as error:
        if how == "itself":
            raise
        if how == "its cause":
            raise RuntimeError("no number") from error
        if how == "a group":
            raise ExceptionGroup("no numbers", [error]) from None
        raise RuntimeError("no number")  # noqa: B904 - as most people write it


class Strict(DestinationPlugin):
    """A destination that reads events by a model of its own."""

    name = "strict"

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    async def execute(self, event: Any) -> None:
        """Fail."""
        fail(self._how, event)


def set_up(place: str, how: str) -> dict[str, Any]:
    """Give the options of a client whose user's code fails in one place."""

    async def enrich(event: Any) -> None:
        fail(how, event)

    if place == "a callback":
        return {"callback": lambda result: fail(how, result.event)}
    return {"plugins": [enrich if place == "a plugin" else Strict(how)]}


@pytest.mark.parametrize("how", ["itself", "its cause", "its context", "a group"])
@pytest.mark.parametrize("place", ["a plugin", "a destination", "a callback"])
async def test_no_value_is_logged_where_a_model_of_the_user_refuses_it(
    place: str, how: str, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What pydantic repeats of an event is left out, wherever it stands."""
    options = set_up(place, how)
    async with Amplitude("key", server_url=emulator.httpapi_url, **options) as client:
        properties = {"a": [[], "secret"]}
        await client.track("e", user_id="user-1", event_properties=properties)

    loud = [r.getMessage() + str(r.exc_text) for r in caplog.records if r.levelno > 10]
    assert any("number" in line for line in loud)
    assert not [line for line in loud if "secret" in line]


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
