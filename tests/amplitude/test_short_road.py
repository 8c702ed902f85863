"""The short road: an event from keyword fields without a model is the same event."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplitude_async.amplitude.compose import build_event
from amplitude_async.amplitude.encoder import (
    EventDefaults,
    encode_event,
    encode_fields,
)
from amplitude_async.amplitude.events import Event
from amplitude_async.encoding import ValuePolicy

POLICY = ValuePolicy()

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
fields = st.dictionaries(
    st.sampled_from(sorted(Event.model_fields.keys() - {"event_type", "extra"})),
    st.text(max_size=8) | st.integers() | st.floats() | values,
    max_size=5,
)


def by_model(event_type: str, given_fields: dict[str, Any]) -> dict[str, Any] | None:
    """Encode through the model; None where the model refuses the fields."""
    try:
        event = build_event(event_type, None, given_fields)
    except ValueError:
        return None
    body = encode_event(
        event, POLICY, EventDefaults(), insert_id=lambda: "new", wall=0.001
    ).body
    members: dict[str, Any] = json.loads(body)
    for name, filled_in in (("insert_id", "new"), ("time", 1)):
        if given_fields.get(name) is None and members[name] == filled_in:
            del members[name]
    return members


@given(st.text(min_size=1, max_size=8), fields)
def test_both_roads_lead_to_the_same_event(
    event_type: str, given_fields: dict[str, Any]
) -> None:
    """Whatever the short road takes, the model would have encoded alike."""
    body = encode_fields(event_type, given_fields, POLICY)
    if body is not None:
        assert json.loads(body) == by_model(event_type, given_fields)


@pytest.mark.parametrize(
    "given_fields",
    [
        {"user_id": 12345},
        {"user_id": "user-1", "price": 1.5},
        {"user_id": "user-1", "product_id": "p"},
        {"user_id": "user-1", "quantity": True},
        {"user_id": "user-1", "event_properties": {"when": object()}},
        {"user_id": "user-1", "event_properties": {"text": "\ud800"}},
        {"user_id": "user-1", "event_properties": {"x": float("nan")}},
        {"user_id": "user-1", "userid": "x"},
        {"user_id": "user-1", "city": None},
    ],
)
def test_what_the_model_must_see_takes_the_long_road(
    given_fields: dict[str, Any],
) -> None:
    """Conversions, aliases, unknown names and bad values are the model's business."""
    assert encode_fields("Signed Up", given_fields, POLICY) is None
