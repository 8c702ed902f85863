"""The one encoding of a batch: what is absent is filled into the bytes."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from amplitude_async.mparticle import (
    Batch,
    CustomEvent,
    GenericEvent,
    UninstallEvent,
    UserIdentities,
    decode_batch,
)
from amplitude_async.mparticle.encoder import encode_stamped

NOW = 1_700_000_000_000
WALL = NOW / 1000


def batch_of(*events: Any, **fields: Any) -> Batch:
    """Make a batch of one user."""
    identities = UserIdentities(customer_id="c-1")
    return Batch(
        environment="development",
        user_identities=identities,
        events=list(events),
        **fields,
    )


EVENTS = [
    CustomEvent(event_name="Opened", custom_event_type="other"),
    CustomEvent(
        event_name="Dated",
        custom_event_type="other",
        timestamp_unixtime_ms=NOW - 5,
        source_message_id="given",
    ),
    UninstallEvent(),
    GenericEvent(event_type="brand_new", data={}),
    GenericEvent(event_type="brand_new", data={"source_message_id": "given"}),
]


def ids() -> Any:
    """Make ids that a test can foresee."""
    counter = itertools.count()
    return lambda: f"id-{next(counter)}"


def stamped(wire: dict[str, Any], new_id: Callable[[], str]) -> dict[str, Any]:
    """Fill in a batch on the wire what it lacks: first its events, then its key."""
    for event in wire["events"]:
        event["data"].setdefault("timestamp_unixtime_ms", NOW)
        if "source_message_id" not in event["data"]:
            event["data"]["source_message_id"] = new_id()
    if "source_request_id" not in wire:
        wire["source_request_id"] = new_id()
    return wire


@pytest.mark.parametrize("key", [None, "given-key", 'with "quotes", a \\ and an é'])
def test_the_bytes_equal_a_stamped_batch(key: str | None) -> None:
    """Filling in bytes and filling in a copy come to the same batch."""
    batch = batch_of(*EVENTS, source_request_id=key)
    encoded = encode_stamped(batch, wall=WALL, new_id=ids())
    slow = stamped(batch.to_wire(), ids())
    assert json.loads(encoded.body) == slow
    assert batch.source_request_id == key
    assert encoded.source_request_id == (key or slow["source_request_id"])


def test_a_batch_without_events_can_go() -> None:
    """Attributes alone are a batch too."""
    encoded = encode_stamped(batch_of(), wall=WALL, new_id=ids())
    assert json.loads(encoded.body) == {
        "environment": "development",
        "user_identities": {"customer_id": "c-1"},
        "source_request_id": "id-0",
    }


@pytest.mark.parametrize("limit", [400, 700, 5_000])
def test_pieces_stay_below_the_limit_and_keep_the_order(limit: int) -> None:
    """A large batch becomes several of the same user, each with a key of its own."""
    names = [f"event-{number}" for number in range(20)]
    events = [CustomEvent(event_name=n, custom_event_type="other") for n in names]
    encoded = encode_stamped(batch_of(*events), wall=WALL)
    pieces = encoded.split(limit)
    assert all(len(piece.body) <= limit for piece in pieces)
    batches = [decode_batch(piece.body) for piece in pieces]
    assert len({batch.source_request_id for batch in batches}) == len(pieces)
    sent = [json.loads(piece.body)["events"] for piece in pieces]
    assert [e["data"]["event_name"] for part in sent for e in part] == names
    assert {b.user_identities.customer_id for b in batches if b.user_identities} == {
        "c-1"
    }


def test_one_event_that_is_too_large_is_named() -> None:
    """What cannot be split is refused with sizes and a remedy."""
    events = [
        CustomEvent(event_name="small", custom_event_type="other"),
        CustomEvent(
            event_name="large",
            custom_event_type="other",
            custom_attributes={"text": "x" * 1_000},
        ),
    ]
    encoded = encode_stamped(batch_of(*events), wall=WALL)
    with pytest.raises(ValueError, match=r"event 1 has 1\d{3} bytes.*at most 800"):
        encoded.split(800)


@pytest.mark.parametrize(
    ("event", "surely"),
    [
        (CustomEvent(event_name="short", custom_event_type="other"), True),
        (CustomEvent(event_name="x" * 257, custom_event_type="other"), False),
        (
            GenericEvent(event_type="brand_new", data={"action_identifier": "x"}),
            False,
        ),
    ],
)
def test_what_is_short_needs_no_second_look(event: Any, *, surely: bool) -> None:
    """Bytes that are too few to break a limit spare the look at each name."""
    encoded = encode_stamped(batch_of(event), wall=WALL)
    assert encoded.surely_within_limits is surely
