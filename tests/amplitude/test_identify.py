"""Identify: one operation per property, in the server's order, copied in and out."""

import copy
import logging
import math
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest

from amplitude_async.amplitude.identify import Identify


class Key(StrEnum):
    """A property name kept in an Enum."""

    PLAN = "plan"


def test_every_operation_in_server_order() -> None:
    """Each operation has its wire name; the order is that of the server."""
    identify = (
        Identify()
        .remove("h", "v")
        .post_insert("g", "w")
        .pre_insert("f", "z")
        .prepend("e", "y")
        .append("d", "x")
        .add("c", 3)
        .set_once("b", 2)
        .set("a", "1")
        .unset("i")
    )
    assert identify.properties == {
        "$unset": {"i": "-"},
        "$set": {"a": "1"},
        "$setOnce": {"b": 2},
        "$add": {"c": 3},
        "$append": {"d": "x"},
        "$prepend": {"e": "y"},
        "$preInsert": {"f": "z"},
        "$postInsert": {"g": "w"},
        "$remove": {"h": "v"},
    }
    assert list(identify.properties)[:5] == [
        "$unset",
        "$set",
        "$setOnce",
        "$add",
        "$append",
    ]


@pytest.mark.parametrize("value", [None, False, 0, 1.5, "", {"a": [1]}, [[1], [2]]])
def test_any_value_passes_unchanged(value: object) -> None:
    """Values are the encoder's business, not refused here."""
    identify = Identify().set("a", value).append("b", value).remove("c", value)
    assert identify.properties == {
        "$set": {"a": value},
        "$append": {"b": value},
        "$remove": {"c": value},
    }


def test_first_use_of_a_key_wins(caplog: pytest.LogCaptureFixture) -> None:
    """A later operation on the same property is ignored with a warning."""
    identify = Identify().set("a", "first").set("a", "second").unset("a").set("b", 1)
    assert identify.properties == {"$set": {"a": "first", "b": 1}}
    assert [record.getMessage() for record in caplog.records] == [
        "$set of 'a' ignored: $set of it came first",
        "$unset of 'a' ignored: $set of it came first",
    ]
    assert {r.name for r in caplog.records} == {"amplitude_async"}
    assert {r.levelno for r in caplog.records} == {logging.WARNING}


def test_clear_all_stands_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It discards what came before and blocks what comes after, with warnings."""
    assert Identify().clear_all().properties == {"$clearAll": "-"}
    assert caplog.records == []
    identify = Identify().set("a", 1).clear_all().set("b", 2)
    assert identify.properties == {"$clearAll": "-"}
    assert len(caplog.records) == 2


def test_empty() -> None:
    """It is empty until there is an operation."""
    assert Identify().is_empty
    assert Identify().properties == {}
    assert not Identify().unset("a").is_empty
    assert not Identify().clear_all().is_empty


@pytest.mark.parametrize("value", [0, -1, 1.5, Decimal("0.1")])
def test_add_takes_numbers(value: float | Decimal) -> None:
    """Any finite number can be added."""
    assert Identify().add("n", value).properties == {"$add": {"n": value}}


@pytest.mark.parametrize(
    "value", [True, "1", None, [1], math.nan, math.inf, Decimal("NaN")]
)
def test_add_refuses_the_rest(value: Any) -> None:
    """The error names key, value and remedy, and nothing is added."""
    identify = Identify()
    with pytest.raises(ValueError, match=r"add\('n'\): .*use set\(\)"):
        identify.add("n", value)
    assert identify.is_empty


@pytest.mark.parametrize("key", ["", None, 4])
def test_bad_keys(key: Any) -> None:
    """A key is text of at least one character."""
    with pytest.raises(ValueError, match=r"\$set: key should be a text"):
        Identify().set(key, 1)


def test_str_enum_key() -> None:
    """A member of a str Enum is its text."""
    properties = Identify().set(Key.PLAN, "pro").properties
    assert type(next(iter(properties["$set"]))) is str


def test_values_are_copied_in_and_out() -> None:
    """Neither the caller's containers nor the dict given out are shared."""
    value: dict[str, Any] = {"list": [1], "tuple": ([2], {3})}
    value["self"] = value
    identify = Identify().set("a", value)
    value["list"].append(2)
    out = identify.properties["$set"]["a"]
    assert out["list"] == [1]
    assert out["tuple"] == ([2], {3})
    assert out["self"] is out
    out["list"].append(9)
    assert identify.properties["$set"]["a"]["list"] == [1]


def test_copies_are_independent() -> None:
    """Operations added to a copy stay with the copy."""
    identify = Identify().set("a", 1)
    for other in (copy.copy(identify), identify.model_copy(), copy.deepcopy(identify)):
        other.set("b", 2)
    assert identify.properties == {"$set": {"a": 1}}


def test_repr_has_counts_only() -> None:
    """Values may be personal and are not printed."""
    identify = Identify().set("mail", "a@b.c").set("x", 1).unset("y")
    assert repr(identify) == "Identify($set=2, $unset=1)"
    assert repr(identify.clear_all()) == "Identify($clearAll=1)"


def test_takes_no_fields() -> None:
    """Operations are chained, not passed."""
    fields: dict[str, Any] = {"set": {"a": 1}}
    with pytest.raises(TypeError, match="takes no arguments: chain operations"):
        Identify(**fields)
