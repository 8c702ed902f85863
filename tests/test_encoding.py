"""The value policy: everything arrives as documented or loses only its own key."""

import asyncio
import enum
import json
import math
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Integral
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, SecretStr, model_serializer
from pydantic_core import PydanticSerializationError

from amplitude_async.encoding import (
    DROP,
    Loss,
    ValuePolicy,
    is_encodable_text,
    to_json,
    unix_ms,
    with_members,
)
from amplitude_async.shown import printable
from tests.conftest import Endless

POLICY = ValuePolicy()

Members: TypeAlias = dict[str, int | str | None]


class Colour(enum.Enum):
    """An Enum whose value is text."""

    RED = "red"


class Level(enum.IntEnum):
    """An Enum that is an int."""

    HIGH = 3


class Key(enum.StrEnum):
    """An Enum that is text."""

    A = "a"


class Text(str):
    """Text with a class of its own."""

    __slots__ = ()


class Celsius(float):
    """A float with a class of its own."""


class Count(int):
    """An int with a class of its own."""


@Integral.register
class MachineInt:
    """A number like those of numpy: an Integral that is no int."""

    def __int__(self) -> int:
        return 5


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int


@dataclass
class Item:
    """A dataclass that can hold itself."""

    price: Decimal
    parts: list[Any] = field(default_factory=list)


class Address(BaseModel):
    """A pydantic model with something that cannot be sent."""

    city: str
    secret: SecretStr = SecretStr("hidden")
    at: date = Field(default=date(2026, 1, 2))


class Node(BaseModel):
    """A pydantic model that dumps itself as itself."""

    @model_serializer
    def _same(self) -> "Node":
        return self


class Evil(Mapping[str, int]):
    """A mapping that breaks when it is read."""

    def __getitem__(self, key: str) -> int:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1


@dataclass
class Shy:
    """A dataclass one of whose fields cannot be read."""

    open: int
    closed: int = 1

    def __getattribute__(self, name: str) -> Any:
        if name == "closed":
            raise PermissionError(name)
        return super().__getattribute__(name)


def convert(value: object, policy: ValuePolicy = POLICY) -> tuple[Any, list[Loss]]:
    """Convert under the path ``p``."""
    losses: list[Loss] = []
    return policy.convert(value, "p", losses), losses


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**70, 2**70),
        (1.5, 1.5),
        ("é", "é"),
        (Text("t"), "t"),
        (Celsius(1.5), 1.5),
        (Count(2), 2),
        (MachineInt(), 5),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Key.A, "a"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),  # noqa: DTZ001
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Decimal("0.1"), 0.1),
        (Decimal(12), 12),
        (Decimal("1E+3"), 1000),
        (Decimal("3.00"), 3.0),
        (Fraction(1, 4), 0.25),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({Key.A}), ["a"]),
        ({"b": 1}.keys(), ["b"]),
        (deque([1]), [1]),
        (UserList([1]), [1]),
        (range(3), [0, 1, 2]),
        (OrderedDict(a=None), {"a": None}),
        (MappingProxyType({"a": [None]}), {"a": [None]}),
        (UserDict({"a": 1}), {"a": 1}),
        ({Key.A: 1, Colour.RED: 2, Text("t"): 3}, {"a": 1, "red": 2, "t": 3}),
        (Item(Decimal("9.99"), [Colour.RED]), {"price": 9.99, "parts": ["red"]}),
        (RootModel[list[int]]([1]), [1]),
    ],
)
def test_documented_form(value: object, expected: object) -> None:
    """Each supported type has one JSON form, in types of JSON."""
    converted, losses = convert(value)
    assert converted == expected
    assert type(converted) is type(expected)
    assert losses == []
    assert POLICY.is_json(converted)


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        bytearray(b"x"),
        memoryview(b"x"),
        math.nan,
        math.inf,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        Decimal("1E+999999999"),
        "\ud800",
        PurePosixPath("\udc80"),
        1j,
        object(),
        len,
        Item,
        iter([1]),
        SecretStr("hidden"),
        Evil(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_json_form(value: object) -> None:
    """What has no JSON form loses its own key or element, and says where."""
    properties = {"good": 1, "bad": value, "list": [1, value, 2]}
    converted, losses = convert(properties)
    assert converted == {"good": 1, "list": [1, 2]}
    assert [loss.path for loss in losses] == ["p.bad", "p.list[1]"]
    assert not POLICY.is_json(properties) or not is_encodable_text(str(value))


def test_reason_names_no_value() -> None:
    """A loss can be logged: it names types, never the value."""
    _, losses = convert({"k": b"topsecret"})
    assert losses == [Loss("p.k", "a bytes has no JSON form")]


def test_keys() -> None:
    """A key that is not text loses its entry; so does the second of two equal ones."""
    value = {1: "x", None: "x", "\ud800": "x", "red": 1, Colour.RED: 2}
    converted, losses = convert(value)
    assert converted == {"red": 1}
    paths = [loss.path for loss in losses]
    assert paths == ["p.<int>", "p.<NoneType>", "p.\\ud800", "p.<Colour>"]


def test_pydantic_model() -> None:
    """A model is an object; a secret in it stays secret."""
    converted, losses = convert({"a": Address(city="Oslo")})
    assert converted == {"a": {"city": "Oslo", "at": "2026-01-02"}}
    assert [loss.path for loss in losses] == ["p.a.secret"]


def test_models_that_cannot_be_dumped() -> None:
    """A model whose own code fails or leads nowhere is lost alone."""
    item = Item(Decimal(1))
    deep = nested(POLICY.max_depth)
    deep_model = [deep, RootModel[list[int]]([1])]
    converted, losses = convert({"node": Node(), "ok": item, "list": deep_model})
    assert converted["ok"] == {"price": 1, "parts": []}
    assert converted["list"][1] == [1]
    assert losses[0].path.startswith("p.node")


def test_mixed_set() -> None:
    """A set without an order still arrives whole."""
    converted, losses = convert({1, "a"})
    assert sorted(converted, key=str) == [1, "a"]
    assert losses == []


def test_dataclass_field_that_raises() -> None:
    """A field that cannot be read is lost alone."""
    converted, losses = convert(Shy(1))
    assert converted == {"open": 1}
    assert losses == [Loss("p.closed", "reading it raised PermissionError")]


def test_circles_are_cut_where_they_close() -> None:
    """An object inside itself is lost at the point where the circle closes."""
    loop: dict[str, Any] = {"n": 1}
    loop["items"] = [loop]
    item = Item(Decimal(1))
    item.parts.append(item)
    converted, losses = convert({"loop": loop, "item": item})
    assert converted == {
        "loop": {"n": 1, "items": []},
        "item": {"price": 1, "parts": []},
    }
    paths = [loss.path for loss in losses]
    assert paths == ["p.loop.items[0]", "p.item.parts[0]"]
    assert not POLICY.is_json(loop)


def test_same_object_twice_is_no_circle() -> None:
    """An object may occur in several places."""
    shared = [b"", 1]
    assert convert([shared, shared])[0] == [[1], [1]]


def nested(levels: int) -> Any:
    """Nest a scalar in so many lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("limit", [1, 2, 40])
def test_depth_limit(limit: int) -> None:
    """As many containers as the limit are kept, the next one is lost."""
    policy = ValuePolicy(max_depth=limit)
    assert policy.is_json(nested(limit))
    assert convert(nested(limit), policy) == (nested(limit), [])
    assert not policy.is_json(nested(limit + 1))
    converted, losses = convert(nested(limit + 1), policy)
    assert json.dumps(converted) == "[" * limit + "]" * limit
    assert losses == [Loss("p" + "[0]" * limit, f"nested deeper than {limit} levels")]


@pytest.mark.parametrize(
    "value", [[1], (1,), {1}, {"a": 1}, Item(Decimal(1)), Address(city="Oslo")]
)
def test_every_container_counts(value: object) -> None:
    """The depth limit holds for whatever becomes an array or an object."""
    converted, losses = convert(value, ValuePolicy(max_depth=0))
    assert converted is DROP
    assert losses == [Loss("p", "nested deeper than 0 levels")]


def test_too_many_values_end() -> None:
    """Endless mappings and structures that multiply themselves come to an end."""
    doubled: Any = [1]
    for _ in range(38):
        doubled = [doubled, doubled]
    assert not POLICY.is_json(doubled)
    for endless in (Endless(), doubled, [1] * 100_001 + [b""]):
        converted, losses = convert({"good": 1, "bad": endless})
        assert converted is DROP
        (loss,) = losses
        assert loss.too_large
        assert loss.path.startswith("p.bad")
        assert "too much to convert" in loss.reason


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("x" * 100_000_000, "has 100,000,000 characters"),
        ("é" * 100_000_000, "has 100,000,000 characters"),
        (["x" * 400_000] * 1_000, "more than 1,000,000 bytes"),
        ({"x" * 100_000_000: 1}, "more than 1,000,000 bytes"),
        ([[1] * 600_000], "more than 1,000,000 bytes"),
        ([Text("x" * 400_000)] * 1_000, "more than 1,000,000 bytes"),
        ([10**300] * 10_000, "more than 1,000,000 bytes"),
        ([1.5] * 400_000, "too much to convert"),
    ],
)
def test_what_fits_into_no_request_is_not_encoded(value: object, told: str) -> None:
    """What comes to more bytes than the API takes is told before it is copied."""
    properties = {"k": value}
    assert not POLICY.is_json(properties)
    converted, losses = convert(properties)
    assert converted is DROP
    assert losses[0].too_large
    assert losses[0].path.startswith("p.k")
    assert told in losses[0].reason


def test_the_budget_is_that_of_the_api() -> None:
    """As much as fits is JSON and stays so; nothing that fits is refused."""
    policy = ValuePolicy(max_bytes=100)
    value: Any
    for value in (["x" * 96], {"k": "x" * 92}, [1] * 49, [10**97], ["x" * 46] * 2):
        assert len(to_json(value)) <= 100
        assert policy.is_json(value)
        assert convert(value, policy) == (value, [])
    for value in (["x" * 100], [1] * 52, [10**110], {"k": {"x" * 100: 1}}):
        assert not policy.is_json(value)
        assert convert(value, policy)[0] is DROP


def test_many_losses_are_told_by_their_number() -> None:
    """Twenty are named, the rest are counted; long paths are cut."""
    value = {f"{number}{'k' * 1_000}": math.nan for number in range(500)}
    converted, losses = convert(value)
    assert converted == {}
    assert len(losses) == 21
    assert losses[-1] == Loss("p", "480 more values were lost", 480)
    assert sum(loss.count for loss in losses) == 500
    assert all(len(loss.path) <= 160 for loss in losses)


def test_paths_print() -> None:
    """Line ends and escapes of keys and classes reach no log."""
    evil = type("A\n\x1b[31m", (), {})
    _, losses = convert({"a\nb\x1b[0m": {evil(): 1}, "c": evil()})
    assert [loss.path for loss in losses] == [
        r"p.a\nb\x1b[0m.<A\n\x1b[31m>",
        "p.c",
    ]
    assert all(loss.reason.isprintable() for loss in losses)


@pytest.mark.parametrize("value", [10**400, -(10**400), 2**1024, Decimal("9E+308")])
def test_numbers_beyond_a_double(value: object) -> None:
    """What a double cannot hold is lost, whatever its type, and costs no time."""
    assert not POLICY.is_json({"k": value, "l": [value], "m": [value] * 100})
    converted, losses = convert({"k": value, "ok": 10**308, "huge": 10**1_000_000})
    assert converted == {"ok": 10**308}
    assert [loss.path for loss in losses] == ["p.k", "p.huge"]
    assert losses[0].reason == "exceeds 1E+308, too large for JSON"


class Dtype:
    """What numpy calls the type of an element."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Element:
    """An element of an array, as numpy and its kin have them."""

    shape = ()

    def __init__(self, item: Any, kind: str = "b") -> None:
        self._item, self.dtype = item, Dtype(kind)

    def item(self) -> Any:
        """Give the value in a type of Python."""
        return self._item


@Integral.register
class Span(Element):
    """A duration of numpy, which calls itself an integer."""

    def __int__(self) -> int:
        return 5


class NotATime(datetime):
    """Like the NaT of pandas: a datetime that equals nothing and prints so."""

    def __eq__(self, _other: object) -> bool:
        return False

    def __ne__(self, _other: object) -> bool:
        return True

    __hash__ = datetime.__hash__

    def isoformat(self, *_args: Any) -> str:
        """Give what pandas gives."""
        return "NaT"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Element(item=True), True),
        (Element(3, "i"), 3),
        (Element("a", "U"), "a"),
        (Element(datetime(2026, 1, 2), "M"), "2026-01-02T00:00:00"),  # noqa: DTZ001
        (Span(timedelta(seconds=2), "m"), 2.0),
    ],
)
def test_elements_of_arrays_are_what_they_hold(value: object, expected: object) -> None:
    """A scalar of numpy arrives as the Python value that its `item()` gives."""
    assert convert({"k": value}) == ({"k": expected}, [])


@pytest.mark.parametrize(
    "value",
    [
        NotATime(2026, 1, 1),
        Span(1_700_000_000_000_000_000, "m"),
        Element(1_700_000_000_000_000_000, "M"),
        Element(None, "M"),
        Element(Element(1)),
        Element,
    ],
)
def test_elements_of_arrays_without_a_value(value: object) -> None:
    """NaT, and counts of a unit that nobody names, are lost or null, never numbers."""
    assert convert([value])[0] in ([], [None])


@pytest.mark.parametrize("value", ["abcdef", {"k": "abcdef"}, [["abcdef"]]])
def test_long_text_is_cut(value: object) -> None:
    """Text beyond the limit is cut to it, keys are not."""
    policy = ValuePolicy(max_string=3)
    assert not policy.is_json(value)
    converted, losses = convert(value, policy)
    assert json.dumps(converted) == json.dumps(value).replace("abcdef", "abc")
    assert [loss.reason for loss in losses] == ["cut to 3 characters"]
    assert policy.is_json({"long key": ["abc"]})


@pytest.mark.parametrize(
    "value",
    [
        {"d": datetime.now(UTC)},
        {1: 1},
        {Key.A: 1},
        OrderedDict(),
        {"a": math.nan},
        {"a": {"b": (1,)}},
        {"a": [{1: 1}]},
        {"a": Text("t")},
        (1,),
    ],
)
def test_not_json(value: object) -> None:
    """Whatever the encoder could send otherwise than documented is not JSON."""
    assert not POLICY.is_json(value)


def test_to_json_refuses_lone_surrogates() -> None:
    """The one thing `is_json` does not look for is found by the encoder."""
    assert to_json({"k": ["é", None, 1.5]}) == '{"k":["é",null,1.5]}'.encode()
    with pytest.raises(PydanticSerializationError):
        to_json(["\ud800"])


class Case(NamedTuple):
    """A value, what becomes of it, and the paths of what it loses."""

    value: Any
    expected: Any
    lost: list[str]


def as_list(cases: list[Case], kind: type) -> Case:
    """Make a case of a sequence out of the cases of its elements."""
    return Case(
        kind(case.value for case in cases),
        [case.expected for case in cases if case.expected is not DROP],
        [f"[{i}]{path}" for i, case in enumerate(cases) for path in case.lost],
    )


def as_dict(cases: dict[str, Case], kind: type) -> Case:
    """Make a case of a mapping out of the cases of its values."""
    return Case(
        kind({key: case.value for key, case in cases.items()}),
        {k: case.expected for k, case in cases.items() if case.expected is not DROP},
        [f".{key}{path}" for key, case in cases.items() for path in case.lost],
    )


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
).map(lambda value: Case(value, value, []))
CONVERTED = st.one_of(
    st.datetimes().map(lambda value: Case(value, value.isoformat(), [])),
    st.uuids().map(lambda value: Case(value, str(value), [])),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(
        lambda value: Case(value, float(value), [])
    ),
    st.sampled_from([Case(Colour.RED, "red", []), Case(Level.HIGH, 3, [])]),
)
LOST = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([math.nan, -math.inf, Decimal("NaN"), object(), Evil(), len]),
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3),
).map(lambda value: Case(value, DROP, [""]))
CASES = st.recursive(
    st.one_of(PLAIN, CONVERTED, LOST),
    lambda inner: st.one_of(
        st.builds(
            as_list, st.lists(inner, max_size=4), st.sampled_from([list, tuple, deque])
        ),
        st.builds(
            as_dict,
            st.dictionaries(st.text(max_size=5), inner, max_size=4),
            st.sampled_from([dict, OrderedDict, MappingProxyType]),
        ),
    ),
    max_leaves=15,
)


@given(CASES)
def test_any_value_arrives_or_is_named(case: Case) -> None:
    """Values arrive as documented or lose their own key, and stay as they were."""
    before = repr(case.value)
    converted, losses = convert(case.value)
    assert [loss.path for loss in losses] == [printable(f"p{p}") for p in case.lost]
    assert repr(case.value) == before
    if converted is DROP:
        assert case.expected is DROP
        return
    assert json.loads(to_json(converted)) == case.expected
    assert POLICY.is_json(converted)
    if POLICY.is_json(case.value) and not losses:
        assert to_json(case.value) == to_json(converted)


@given(CASES)
def test_json_needs_no_conversion(case: Case) -> None:
    """What `is_json` accepts encodes to exactly what it is."""
    if POLICY.is_json(case.value) and not case.lost:
        assert json.loads(to_json(case.value)) == case.value


objects = st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3)


@given(objects, objects)
def test_members_are_put_at_the_end(given: Members, added: Members) -> None:
    """Joined as bytes, two objects come to what they come to as dicts."""
    members = b"".join(b",%b:%b" % (to_json(n), to_json(v)) for n, v in added.items())
    joined = with_members(to_json(given), members)
    assert json.loads(joined) == {**given, **added}
    assert list(json.loads(joined)) == list({**given, **added})


def test_milliseconds_are_whole() -> None:
    """A vendor takes whole milliseconds; what is beyond them is cut."""
    assert unix_ms(1_700_000_000.9999) == 1_700_000_000_999


def test_a_cancelled_error_of_a_value_loses_that_value_alone() -> None:
    """Nothing is awaited while values are converted: nobody is being cancelled."""

    class Sulky(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            raise asyncio.CancelledError

        def __iter__(self) -> Iterator[str]:
            raise asyncio.CancelledError

        def __len__(self) -> int:
            return 1

    losses: list[Loss] = []
    assert ValuePolicy().convert({"a": Sulky(), "b": 1}, "p", losses) == {"b": 1}
