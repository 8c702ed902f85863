"""Lines of structlog name the user whose request they belong to."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

structlog = pytest.importorskip("structlog")

from structlog.testing import LogCapture  # noqa: E402 - after the skip

from amplitude_async import bind, bound  # noqa: E402
from amplitude_async.integrations import structlog as integration  # noqa: E402
from amplitude_async.integrations.structlog import BoundFields  # noqa: E402

__all__: list[str] = []


def logger(*processors: Any) -> tuple[Any, list[Any]]:
    """Return a logger with these processors, and the list of what it writes."""
    capture = LogCapture()
    wrapped = structlog.wrap_logger(None, processors=[*processors, capture])
    return wrapped, capture.entries


@pytest.fixture(autouse=True)
def nothing_configured() -> Iterator[None]:
    """Leave structlog as it was."""
    yield
    structlog.reset_defaults()


def test_bound_fields_are_added() -> None:
    """Where they are bound, and only those that were asked for."""
    log, lines = logger(BoundFields())
    log.info("outside")
    with bound(user_id="user-1", city="Rome"):
        bind(session_id=7)
        log.info("inside", price=1)
    log.info("after")
    level = {"log_level": "info"}
    assert lines == [
        {"event": "outside", **level},
        {"event": "inside", "price": 1, "user_id": "user-1", "session_id": 7, **level},
        {"event": "after", **level},
    ]


def test_the_line_itself_wins() -> None:
    """A name that the line uses for something else is not overwritten."""
    log, lines = logger(BoundFields())
    with bound(user_id="user-1"):
        log.info("seen", user_id="other")
    assert lines[0]["user_id"] == "other"


def test_the_fields_can_be_chosen_and_named() -> None:
    """One alone may be given as text."""
    log, lines = logger(BoundFields("city", prefix="amplitude_"))
    with bound(user_id="user-1", city="Rome"):
        log.info("seen")
    assert lines == [{"event": "seen", "amplitude_city": "Rome", "log_level": "info"}]
    assert repr(BoundFields(["a", "b"], prefix="x_")) == "<BoundFields x_a, x_b>"


async def test_each_request_names_its_own_user() -> None:
    """However they are interleaved."""
    log, lines = logger(BoundFields())

    async def request(number: int) -> None:
        with bound(user_id=f"user-{number}"):
            await asyncio.sleep(0)
            log.info("seen", number=number)

    await asyncio.gather(*(request(number) for number in range(100)))
    assert [line["user_id"] for line in lines] == [
        f"user-{line['number']}" for line in lines
    ]


def test_nothing_that_goes_wrong_costs_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is written without the user."""

    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(integration, "fields_here", broken)
    log, lines = logger(BoundFields())
    log.info("seen")
    assert lines == [{"event": "seen", "log_level": "info"}]
