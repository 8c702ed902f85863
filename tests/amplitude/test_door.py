"""The door refuses what the server would refuse, and says how to mend it."""

import json
import logging
from typing import Any
from uuid import UUID

import pytest

from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.door import FORBIDDEN_IDS, AmplitudeDoor
from amplitude_async.amplitude.events import Event
from amplitude_async.client.destination import Refusal
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock

__all__: list[str] = []

WALL = 1_700_000_000.0
LOGGER = "amplitude_async"


def door(max_bytes: int = 1_000_000, **options: Any) -> AmplitudeDoor:
    """Return the door of a project."""
    config = Config(api_key="key", **options)
    reporter = Reporter(config.logger, FakeClock(), "amplitude")
    return AmplitudeDoor(config, max_bytes, reporter)


def admitted(event: Event, **options: Any) -> Record:
    """Return the record of an event that must get in."""
    record = door(**options).admit(event, 7, WALL)
    assert isinstance(record, Record), record
    return record


def refused(event: Event, **options: Any) -> str:
    """Return why an event did not get in."""
    refusal = door(**options).admit(event, 7, WALL)
    assert isinstance(refusal, Refusal)
    return refusal.message


def event(**fields: Any) -> Event:
    """Return an event with a type."""
    return Event(**{"event_type": "click", **fields})


def test_a_record_knows_what_the_engine_must_know() -> None:
    """Number, ids, insert_id and time of acceptance stand beside the bytes."""
    record = admitted(event(user_id="user-1", device_id="device-1", insert_id="i-1"))

    assert record == Record(7, record.body, "user-1", "user-1", "device-1", "i-1", WALL)
    assert json.loads(record.body)["insert_id"] == "i-1"


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        pytest.param({"user_id": "user-1"}, "user-1", id="user"),
        pytest.param({"device_id": "device-1"}, "device-1", id="device"),
        pytest.param(
            {"user_id": "user-1", "device_id": "device-1"}, "user-1", id="both"
        ),
        pytest.param(
            {"user_id": "", "device_id": "device-1"}, "device-1", id="empty user"
        ),
        pytest.param(
            {"event_type": "$groupidentify", "groups": {"org": "acme"}},
            "org:acme",
            id="group",
        ),
    ],
)
def test_an_identity_is_user_else_device_else_group(
    fields: dict[str, Any], identity: str
) -> None:
    """Events of one identity are kept in order: the first id there is names it."""
    assert admitted(event(**fields)).identity == identity


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        pytest.param(
            {}, {}, "user_id and device_id are missing: pass one of them", id="no id"
        ),
        pytest.param(
            {"user_id": "", "device_id": ""},
            {},
            "user_id and device_id are missing: pass one of them",
            id="empty ids",
        ),
        pytest.param(
            {"user_id": "42"},
            {},
            "user_id '42' has 2 characters, the server wants 5: set min_id_length=2",
            id="short user",
        ),
        pytest.param(
            {"device_id": "abcdef"},
            {"min_id_length": 7},
            "device_id 'abcdef' has 6 characters, the server wants 7: "
            "set min_id_length=6",
            id="short by our own rule",
        ),
        pytest.param(
            {"user_id": "undefined"},
            {},
            "user_id='undefined' is a value the server refuses: leave it out or use "
            "a real id",
            id="forbidden user",
        ),
        pytest.param(
            {"user_id": "user-1", "device_id": "UNKNOWN"},
            {},
            "device_id='UNKNOWN' is a value the server refuses: leave it out or use "
            "a real id",
            id="forbidden device beside a good user",
        ),
        pytest.param(
            {"user_id": "user-1", "event_type": " "},
            {},
            "event_type is empty: name the event",
            id="no type",
        ),
    ],
)
def test_a_refusal_names_field_value_and_remedy(
    fields: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    """What the server would refuse is refused here, in words that help."""
    assert refused(event(**fields), **options) == message


@pytest.mark.parametrize("value", sorted(FORBIDDEN_IDS - {""}))
def test_no_forbidden_id_gets_in(value: str) -> None:
    """The values the API refuses are refused in any case and at any length."""
    for spelling in (value, value.upper()):
        message = refused(event(user_id=spelling), min_id_length=1)
        assert f"user_id={spelling!r}" in message


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (12345, "12345"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_numbers_and_uuids_are_ids(given: object, text: str) -> None:
    """An id that is no text becomes one before it is measured."""
    record = admitted(event(user_id=given))

    assert record.user_id == record.identity == text
    assert json.loads(record.body)["user_id"] == text


def test_a_short_id_gets_in_where_the_server_is_told_to_take_it() -> None:
    """``min_id_length`` decides here as it does there."""
    assert admitted(event(user_id="42"), min_id_length=2).user_id == "42"


def test_a_group_identify_needs_no_id() -> None:
    """``$groupidentify`` speaks of a group and is exempt."""
    identify = event(event_type="$groupidentify", groups={"org": "acme"})

    assert admitted(identify).user_id is None


def test_a_short_id_beside_a_good_one_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server drops the short id and takes the event, so does the door."""
    with caplog.at_level(logging.WARNING, LOGGER):
        record = admitted(event(user_id="user-1", device_id="42"))

    assert record.user_id == "user-1"
    assert "device_id (hidden) has 2 characters" in caplog.text


def test_an_event_larger_than_a_request_is_refused() -> None:
    """Size is measured on the encoded bytes, and the message says what helps."""
    large = event(user_id="user-1", event_properties={"text": "x" * 5_000})

    message = refused(large, max_bytes=5_000)

    assert "a request takes at most 5000" in message
    assert "use_batch=True" in message


def test_an_event_of_exactly_the_size_gets_in() -> None:
    """The bound itself is allowed."""
    exact = event(user_id="user-1", insert_id="i-1", time=1_700_000_000_000)
    size = len(admitted(exact).body)

    assert len(admitted(exact, max_bytes=size).body) == size
    assert "bytes" in refused(exact, max_bytes=size - 1)


def test_a_lost_property_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """What has no JSON form loses its own key; the warning gives path, not value."""
    lossy = event(user_id="user-1", event_properties={"good": 1, "bad": float("nan")})

    with caplog.at_level(logging.WARNING, LOGGER):
        entrance = door()
        records = [entrance.admit(lossy, number, WALL) for number in (1, 2)]

    assert [getattr(record, "losses", 0) for record in records] == [1, 1]
    [line] = [record.getMessage() for record in caplog.records]
    assert "event 'click' lost event_properties.bad: " in line


def test_context_is_filled_in_unless_it_is_switched_off() -> None:
    """Library, plan and ingestion metadata come from the configuration."""
    entrance = door(plan={"branch": "main"})
    with_context = entrance.admit(event(user_id="user-1"), 1, WALL)
    entrance.fill_context(enabled=False)
    without = entrance.admit(event(user_id="user-1"), 2, WALL)

    assert isinstance(with_context, Record)
    assert isinstance(without, Record)
    assert json.loads(with_context.body)["plan"] == {"branch": "main"}
    assert json.loads(with_context.body)["library"].startswith("amplitude-async")
    assert not {"plan", "library"} & json.loads(without.body).keys()


def test_both_roads_stamp_the_clocks_time() -> None:
    """An event without a time gets that of its acceptance, however it was given."""
    by_event = admitted(event(user_id="user-1"))
    by_name = door().admit_fields("click", {"user_id": "user-1"}, 7, WALL)

    assert by_name is not None
    assert json.loads(by_event.body)["time"] == WALL * 1000
    assert json.loads(by_name.body)["time"] == WALL * 1000


def test_the_callers_event_stays_as_it_was() -> None:
    """``time`` and ``insert_id`` are filled in on the wire, not in the object."""
    given = event(user_id="user-1")

    first, second = admitted(given), admitted(given)

    assert given.insert_id is None
    assert given.time is None
    assert first.insert_id != second.insert_id
    assert json.loads(first.body).keys() >= {"time", "insert_id"}
