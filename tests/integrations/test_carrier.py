"""A carrier takes a few fields over a queue, and nothing else, whoever wrote it."""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplitude_async import bind, bound
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.integrations.carrier import CARRIED, MAX_BYTES, Carrier

__all__: list[str] = []

USER = UUID("00000000-0000-0000-0000-000000000007")


def test_what_is_bound_arrives() -> None:
    """The fields that travel come out as they went in."""
    fields = {
        "user_id": "user-1",
        "device_id": "device-1",
        "session_id": 1_700_000_000_000,
        "groups": {"company": "c-1", "teams": ["a", "b"]},
        "event_properties": {"plan": "pro", "seats": 3, "rate": 0.5, "on": True},
    }
    carrier = Carrier()

    with bound(**fields, ip="192.0.2.1", user_properties={"age": 30}):  # type: ignore[arg-type]
        header = carrier.packed()

    assert header is not None
    assert header.isascii()
    assert Carrier().unpacked(header) == fields


def test_nothing_bound_is_no_header() -> None:
    """A message of nobody has no carrier."""
    carrier = Carrier()

    assert carrier.packed() is None
    with bound(ip="192.0.2.1"):
        assert carrier.packed() is None
    assert Carrier(carry=False).packed({"user_id": "user-1"}) is None


def test_values_travel_in_their_json_form() -> None:
    """What an event would send converted is converted for the carrier alike."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    header = Carrier().packed(
        {"user_id": USER, "event_properties": {"at": moment, "deep": {"a": {"b": 1}}}}
    )

    assert Carrier().unpacked(header) == {
        "user_id": str(USER),
        "event_properties": {"at": "2026-01-02T00:00:00+00:00"},
    }


@pytest.mark.parametrize("names", [["user_id"], ["groups", "user_id"]])
def test_only_named_fields_travel(names: list[str]) -> None:
    """A list of fields holds for what is sent, and for what is taken."""
    fields = {"user_id": "u-1", "device_id": "d-1", "groups": {"company": "c"}}
    expected = {name: fields[name] for name in names}

    assert Carrier().unpacked(Carrier(names).packed(fields)) == expected
    assert Carrier(names).unpacked(Carrier().packed(fields)) == expected


@pytest.mark.parametrize("names", ["user_id", ["user_properties"], ["ip", "user_id"]])
def test_a_field_that_cannot_travel_is_refused(names: Any) -> None:
    """A name that no carrier takes is an error where it is written."""
    with pytest.raises(ConfigurationError, match="carry"):
        Carrier(names)


def test_properties_stay_behind_first(caplog: pytest.LogCaptureFixture) -> None:
    """What has no room is left out whole, from properties to groups, and never cut."""
    fields = {
        "user_id": "u" * 400,
        "groups": {"company": "c" * 300, "team": "t" * 500},
        "event_properties": {"long": "x" * 400, "short": 1},
    }

    header = Carrier().packed(fields)

    assert header is not None
    assert len(header) <= MAX_BYTES
    assert Carrier().unpacked(header) == {
        "user_id": "u" * 400,
        "groups": {"company": "c" * 300},
        "event_properties": {"short": 1},
    }
    assert "2 properties or groups were not carried" in caplog.text


def test_an_id_is_never_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Where the ids have no room, nothing travels: half an identity is another one."""
    fields = {"user_id": "u" * 1020, "device_id": "d-1"}

    assert Carrier().packed(fields) is None
    assert "not cut" in caplog.text


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "user_id": st.text(max_size=1200),
            "device_id": st.text(max_size=300),
            "session_id": st.integers(-(2**63), 2**63 - 1),
            "groups": st.dictionaries(st.text(), st.text() | st.lists(st.text())),
            "event_properties": st.dictionaries(
                st.text(),
                st.recursive(
                    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                    st.lists,
                ),
            ),
        },
    )
)
def test_whatever_is_bound_fits_and_is_read(fields: dict[str, Any]) -> None:
    """Each header that is written is within its size, and is taken by the reader."""
    carrier = Carrier()

    header = carrier.packed(fields)

    if header is not None:
        assert len(header) <= MAX_BYTES
        found = carrier.unpacked(header)
        assert found.items()
        for name, value in found.items():
            if isinstance(value, dict):
                assert value.keys() <= fields[name].keys()
            else:
                assert value == fields[name]


FORGED: Mapping[str, object] = {
    "no text": 7,
    "not ASCII": b"\xff\xfe",
    "no JSON": "{",
    "no object": "[1]",
    "nested": "[" * 1024,
    "no version": '{"user_id":"u"}',
    "version 2": '{"v":2,"user_id":"u"}',
    "version true": '{"v":true,"user_id":"u"}',
    "version 1.0": '{"v":1.0,"user_id":"u"}',
    "too long": '{"v":1,"user_id":"' + "u" * 1024 + '"}',
    "api key": '{"v":1,"user_id":"u","api_key":"k"}',
    "user properties": '{"v":1,"user_id":"u","user_properties":{"$set":{"a":1}}}',
    "insert id": '{"v":1,"user_id":"u","insert_id":"i"}',
    "revenue": '{"v":1,"user_id":"u","revenue":9.5}',
    "id a number": '{"v":1,"user_id":7}',
    "id empty": '{"v":1,"user_id":""}',
    "id null": '{"v":1,"user_id":null}',
    "id surrogate": '{"v":1,"user_id":"\\ud800"}',
    "session text": '{"v":1,"session_id":"1"}',
    "session true": '{"v":1,"session_id":true}',
    "session huge": '{"v":1,"session_id":' + "9" * 400 + "}",
    "groups a list": '{"v":1,"groups":["a"]}',
    "group a number": '{"v":1,"groups":{"a":1}}',
    "property NaN": '{"v":1,"event_properties":{"a":NaN}}',
    "property infinite": '{"v":1,"event_properties":{"a":1e999}}',
    "property an object": '{"v":1,"event_properties":{"a":{"b":1}}}',
    "property null": '{"v":1,"event_properties":{"a":null}}',
    "list in a list": '{"v":1,"event_properties":{"a":[[1]]}}',
}


@pytest.mark.parametrize("header", FORGED.values(), ids=FORGED.keys())
def test_a_forged_carrier_is_ignored(
    header: object, caplog: pytest.LogCaptureFixture
) -> None:
    """What is malformed or has more than it may is taken as absent, and told."""
    assert Carrier().unpacked(header) == {}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "u" * 20 not in caplog.text


def test_a_flood_of_forged_carriers_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A hostile producer cannot fill the log."""
    carrier = Carrier()

    for _ in range(1000):
        carrier.unpacked("{")

    assert len(caplog.records) == 1


@given(st.text() | st.binary() | st.recursive(st.none() | st.text(), st.lists))
def test_reading_never_raises(header: object) -> None:
    """Whatever a message has there, the job goes on."""
    assert Carrier().unpacked(header) == {}


@given(
    st.dictionaries(
        st.sampled_from([*CARRIED, "v", "ip"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    )
)
def test_what_is_read_can_be_bound(found: dict[str, Any]) -> None:
    """Every field that comes out of a carrier is one that an event takes."""
    fields = Carrier().unpacked(json.dumps({**found, "v": 1}))

    assert fields.keys() <= set(CARRIED)
    with bound():
        bind(**fields)


def test_an_id_that_no_reader_takes_is_not_written() -> None:
    """Half a character is no text: the sender says so, and no message is in vain."""
    carrier = Carrier(True)

    assert carrier.packed({"user_id": "user-\ud800", "device_id": "device-1"}) is None
    assert carrier.packed({"session_id": 2**70, "user_id": "user-1"}) is None


def test_a_long_header_of_bytes_is_not_read() -> None:
    """Its length is looked at before anything is decoded."""

    class Long(bytes):
        def decode(self, *_: object, **__: object) -> str:
            raise AssertionError

    assert Carrier(True).unpacked(Long(1025)) == {}
