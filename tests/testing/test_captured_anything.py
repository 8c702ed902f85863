"""Whatever arrives, and whatever is asked: an answer comes, in a short message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amplitude_async import DeliveryStatus
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.testing import CapturedEvents, Mask
from tests.conftest import examples

__all__: list[str] = []

KEYS = st.sampled_from(
    [
        "data",
        "deleted_user_attributes",
        "device_id",
        "environment",
        "event_properties",
        "event_type",
        "events",
        "group_properties",
        "groups",
        "insert_id",
        "mpid",
        "price",
        "product_action",
        "quantity",
        "revenue",
        "time",
        "user_attributes",
        "user_id",
        "user_identities",
        "user_properties",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["email", "name", "user_id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
PARTS = JSON | st.dictionaries(KEYS, JSON, max_size=3)
EVENTS = st.dictionaries(
    KEYS,
    PARTS | st.lists(st.dictionaries(KEYS, JSON, max_size=4), max_size=3),
    max_size=7,
)
ODD = JSON | st.floats() | st.binary(max_size=4) | st.builds(object)
EXPECTED = st.dictionaries(
    st.sampled_from(["total", "user_id", "price", "event_properties", "groups"]),
    ODD,
    max_size=3,
)


def check(ask: Callable[[], object]) -> None:
    """Ask, and look at the message where the answer is no."""
    try:
        ask()
    except AssertionError as error:
        message = str(error)
        assert len(message.splitlines()) <= 40
        assert all(c.isprintable() or c == "\n" for c in message)


@pytest.mark.allow_blocking
@settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    given_events=st.lists(EVENTS, max_size=4),
    name=st.text(st.characters(codec=None), max_size=4),
    expected=EXPECTED,
    odd=ODD,
    status=st.sampled_from(list(DeliveryStatus)),
)
def test_anything_is_taken_and_compared(
    tmp_path: Path,
    given_events: list[dict[str, Any]],
    name: str,
    expected: dict[str, Any],
    odd: Any,
    status: DeliveryStatus,
) -> None:
    """No event and no question raises anything but the answer."""
    events = CapturedEvents()
    for number, event in enumerate(given_events):
        end = Outcome(status if number == 1 else DeliveryStatus.DELIVERED, message="\n")
        body = None if number == 2 else json.dumps(event).encode()
        where = ("amplitude", "mparticle", "warehouse")[number % 3]
        events.add(where, body, event, f"i-{number}", end)

    check(lambda: events.assert_tracked(name, **expected))
    check(lambda: events.assert_not_tracked("", **expected))
    check(lambda: events.assert_revenue(odd, **expected))
    check(lambda: events.assert_identified(odd, set=expected, unset=odd))
    check(lambda: events.assert_group_identified(name, odd, set=expected))
    check(events.assert_no_rejections)
    rows = events.snapshot()
    assert json.loads(json.dumps(rows)) == rows
    path = tmp_path / "events.ndjson"
    for mask in (Mask(), Mask(pseudonyms=True)):
        events.write(path, mask=mask)
        events.assert_recorded(path, mask=mask)
        check(lambda: CapturedEvents().assert_recorded(path))
    for one in (*events, *events.rejected, *events.dropped):
        assert repr(one).isprintable()
