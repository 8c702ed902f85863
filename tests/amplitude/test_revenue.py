"""Revenue: amounts, reserved keys, and what is left out."""

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from amplitude_async.amplitude.events import Event
from amplitude_async.amplitude.revenue import Revenue


def test_all_fields() -> None:
    """Every field has its reserved key."""
    revenue = Revenue(
        price=3.99,
        quantity=2,
        product_id="p",
        revenue_type="purchase",
        currency="EUR",
        receipt="r",
        receipt_sig="rs",
        revenue=7.98,
        properties={"color": "red", "n": 1},
    )
    assert revenue.event_properties() == {
        "$productId": "p",
        "$quantity": 2,
        "$price": 3.99,
        "$revenueType": "purchase",
        "$currency": "EUR",
        "$receipt": "r",
        "$receiptSig": "rs",
        "$revenue": 7.98,
        "color": "red",
        "n": 1,
    }


def test_unset_keys_are_left_out() -> None:
    """Only the quantity has a default: the server's own."""
    assert Revenue(price=1.5).event_properties() == {"$price": 1.5, "$quantity": 1}
    assert Revenue(revenue=9.99).event_properties() == {
        "$revenue": 9.99,
        "$quantity": 1,
    }


def test_reserved_keys_win() -> None:
    """A property cannot stand in for a reserved key, and is not changed."""
    properties = {"$price": 0, "color": "red"}
    revenue = Revenue(price=2, properties=properties)
    assert revenue.event_properties()["$price"] == 2
    assert properties == {"$price": 0, "color": "red"}
    assert revenue.properties == properties


@pytest.mark.parametrize("amount", [10, -3.5, 0, Decimal("0.1")])
def test_amounts(amount: float | Decimal) -> None:
    """Any finite number is an amount and becomes a JSON number."""
    properties = Revenue(price=amount).event_properties()
    assert json.loads(json.dumps(properties))["$price"] == float(amount)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", "10"),
        ("price", True),
        ("price", math.nan),
        ("revenue", Decimal("Infinity")),
        ("quantity", 0),
        ("quantity", -2),
        ("quantity", 1.5),
        ("quantity", True),
        ("currency", 1),
    ],
)
def test_bad_values(name: str, value: object) -> None:
    """A bad value raises an error that names its field."""
    fields: dict[str, Any] = {name: value}
    with pytest.raises(ValidationError, match=name):
        Revenue(**fields)


def test_unknown_field() -> None:
    """A misspelt field is named with the one probably meant."""
    fields: dict[str, Any] = {"productid": "p"}
    with pytest.raises(ValidationError, match="did you mean 'product_id'"):
        Revenue(**fields)


def test_without_amount() -> None:
    """It can be built step by step and says what is missing."""
    revenue = Revenue(product_id="p")
    assert not revenue.is_valid
    assert revenue.problem == "a Revenue without amount: give price or revenue"
    revenue.price = 0
    assert revenue.is_valid
    assert revenue.problem is None


def test_event() -> None:
    """The event has the reserved type and takes further fields."""
    event = Revenue(price=1).to_event(
        user_id="u", event_properties={"a": 1, "$price": 9}
    )
    assert event == Event(
        event_type="revenue_amount",
        user_id="u",
        event_properties={"a": 1, "$price": 1.0, "$quantity": 1},
    )
