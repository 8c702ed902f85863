"""What comes from outside, thrown at random: answers of servers, and values of callers.

A few hundred cases of each run with the suite, always the same; `nox -s fuzz` throws
other dice for minutes.
"""

import asyncio
import enum
import json
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from amplitude_async.amplitude import endpoint as amplitude
from amplitude_async.amplitude.encoder import (
    EventDefaults,
    InsertIds,
    encode_event,
    encode_fields,
)
from amplitude_async.amplitude.events import Event
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Broken,
    Busy,
    Halve,
    Refuse,
    Response,
    Sort,
    retry_after,
)
from amplitude_async.encoding import DROP, Loss, ValuePolicy, to_json
from amplitude_async.mparticle import CustomEvent
from amplitude_async.mparticle import endpoint as mparticle
from amplitude_async.mparticle.models.batch import Batch
from amplitude_async.storage.base import Record

__all__: list[str] = []

WALL = 1_700_000_000.0
CAP = 300.0
USERS = ("user-a", "user-b", None)

# --- Answers ---

retry_texts = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.integers(1, 10**30).map(str),
    st.builds(
        "{}, {:02} {} {} {:02}:{:02}:{:02} {}{:04}".format,
        st.sampled_from(["Sun", "Tue", "xyz", ""]),
        st.integers(-9, 99),
        st.sampled_from(["Jan", "Feb", "Nov", "Okt"]),
        st.integers(-5, 99_999),
        st.integers(-3, 99),
        st.integers(-3, 99),
        st.integers(-3, 99),
        st.sampled_from(["+", "-", "GMT", ""]),
        st.integers(0, 99_999_999),
    ),
)
headers = st.dictionaries(
    st.sampled_from(
        ["retry-after", "x-mp-rate-limit-exceeded", "content-type", "location"]
    ),
    retry_texts,
    max_size=3,
)
scalars = st.none() | st.booleans() | st.integers(-5, 10) | st.floats() | st.text()
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)
concerned = st.one_of(
    anything,
    st.lists(st.integers(-2, 8), max_size=6),
    st.lists(st.sampled_from(["user-a", "device-1", "user-x"]), max_size=3),
    st.dictionaries(st.sampled_from(["user-a", "time"]), anything, max_size=2),
)
answers = st.dictionaries(
    st.sampled_from(
        [
            "code",
            "error",
            "errors",
            "missing_field",
            "events_with_invalid_fields",
            "events_with_missing_fields",
            "events_with_invalid_id_lengths",
            "silenced_events",
            "silenced_devices",
            "throttled_events",
            "throttled_users",
            "throttled_devices",
            "exceeded_daily_quota_users",
            "exceeded_daily_quota_devices",
        ]
    ),
    concerned,
    max_size=6,
)
bodies = st.one_of(
    st.binary(max_size=200),
    answers.map(lambda answer: json.dumps(answer).encode()),
    anything.map(lambda answer: json.dumps(answer).encode()),
    answers.map(lambda answer: json.dumps(answer).encode()[:-2]),
    st.just(b"[" * 100_000),
    st.just(b'{"errors":' * 50_000),
    st.just(b'{"code":' + b"9" * 100_000 + b"}"),
)
responses = st.builds(
    Response,
    st.one_of(
        st.sampled_from([0, 200, 202, 400, 401, 403, 404, 408, 413, 429, 500, 503]),
        st.integers(-1, 1_000),
    ),
    bodies,
    headers,
    st.none() | st.text(max_size=50),
    sent=st.booleans(),
)
records = st.lists(
    st.builds(
        lambda user: Record(0, b"{}", user or "", user, "device-1", "i", WALL),
        st.sampled_from(USERS),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("interpret", [amplitude.interpret, mparticle.interpret])
@given(response=responses, sent=records)
def test_any_answer_has_one_verdict(
    interpret: Callable[..., Any], response: Response, sent: list[Record]
) -> None:
    """Nothing raises, and nothing makes us ask again at once and for nothing."""
    verdict = interpret(response, sent, WALL)

    assert isinstance(verdict, Accept | Bisect | Broken | Busy | Halve | Refuse | Sort)
    assert isinstance(verdict, Accept) is (200 <= response.status < 300)
    if isinstance(verdict, Busy) and verdict.wait is not None:
        assert 0.0 <= verdict.wait <= CAP
    if isinstance(verdict, Sort):
        named = {*verdict.rejected, *verdict.throttled}
        assert all(type(index) is int and index >= 0 for index in named)
        # The rest goes again: that is progress only where somebody stays behind.
        assert any(index < len(sent) for index in named)


@given(retry_texts)
@example("Fri, 31 Dec 9999 23:59:59 -9959")
@example("Sat, 01 Jan 0001 00:00:00 +9999")
@example("Tue, 01 Jan 2030 00:00:00 +99999999")
@example("9" * 5_000)
def test_any_retry_after_is_a_wait_or_nothing(text: str) -> None:
    """A header gives seconds within bounds, or counts as absent."""
    wait = retry_after({"retry-after": text}, WALL, CAP)

    assert wait is None or 0.0 <= wait <= CAP


# --- Values ---


class Hostile:
    """An object each of whose special methods raises something else."""

    def __init__(self, error: BaseException) -> None:
        self.__dict__["error"] = error

    def __getattr__(self, _name: str) -> Any:
        raise self.__dict__["error"]

    def _fail(self, *_args: Any) -> Any:
        raise self.__dict__["error"]

    __repr__ = __str__ = __iter__ = __len__ = __int__ = __float__ = _fail


class Liar:
    """Says that it is of another class."""

    def __init__(self, claimed: type) -> None:
        self.claimed = claimed

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """Lie."""
        return self.claimed


class HostileText(str):
    """Text that prints, hashes and compares as itself and encodes as something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return '"}],"evil":{"'

    def encode(self, *_args: Any, **_options: Any) -> bytes:
        """Give something else."""
        return b'"'


class HostileInt(int):
    """An int that shows something else."""

    def __int__(self) -> int:
        return 10**400

    def __repr__(self) -> str:
        return "NaN"


class HostileFloat(float):
    """A float that says that it is finite."""

    def __float__(self) -> float:
        return math.nan

    def __repr__(self) -> str:
        return "Infinity"


class Endless(list[int]):
    """A list that never ends."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


class Twice(Mapping[str, int]):
    """A mapping that gives each key twice."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["k", "k", '"', "\ud800"])

    def __len__(self) -> int:
        return 4


class Kind(enum.StrEnum):
    """Text whose name as a key is that of plain text."""

    K = "k"


hostile = st.one_of(
    st.sampled_from([RuntimeError(), RecursionError(), asyncio.CancelledError()]).map(
        Hostile
    ),
    st.sampled_from([str, int, dict, list, float, datetime, Decimal, type(None)]).map(
        Liar
    ),
    st.text().map(HostileText),
    st.integers().map(HostileInt),
    st.floats().map(HostileFloat),
    st.sampled_from([Endless(), Twice(), Kind.K, type, object, Ellipsis, Kind]),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 2_000).map(lambda power: 10**power),
    st.floats(),
    st.text(),
    st.text(st.characters(), max_size=5),
    st.text(st.characters(categories=["Cs", "Cc"]), max_size=3),
    st.binary(max_size=5),
    st.decimals(),
    st.fractions(),
    st.datetimes(),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.complex_numbers(),
    hostile,
)
keys = st.one_of(
    st.text(max_size=4),
    st.sampled_from(["k", Kind.K, HostileText("k"), '"', "\ud800", "\n", 1, None]),
)


def pairs_to(kind: Any) -> Callable[[Any], Any]:
    """Make a mapping of pairs."""
    return lambda pairs: kind(dict(pairs))


values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.lists(inner, max_size=5).map(deque),
        st.lists(st.tuples(keys, inner), max_size=5).map(pairs_to(dict)),
        st.lists(st.tuples(keys, inner), max_size=5).map(pairs_to(OrderedDict)),
        st.lists(st.tuples(keys, inner), max_size=5).map(pairs_to(MappingProxyType)),
    ),
    max_leaves=20,
)


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object whose keys are all different."""
    made = dict(pairs)
    assert len(made) == len(pairs), pairs
    return made


def refuse(constant: str) -> Any:
    """Fail for what is no JSON, though Python reads it."""
    pytest.fail(constant)


def strict(body: bytes) -> Any:
    """Read JSON as the strictest of servers."""
    return json.loads(
        body.decode("utf-8"), object_pairs_hook=without_twins, parse_constant=refuse
    )


def check_numbers(value: Any) -> None:
    """Fail for a number that no double can hold."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            check_numbers(item)
    elif isinstance(value, int | float):
        assert math.isfinite(value)


@given(values)
def test_any_value_becomes_strict_json(value: Any) -> None:
    """Or is lost with a path and a reason that print."""
    policy, losses = ValuePolicy(max_bytes=10_000), list[Loss]()
    converted = policy.convert(value, "p", losses)

    assert all(loss.path.isprintable() for loss in losses)
    assert all(loss.reason.isprintable() for loss in losses)
    if converted is DROP:
        assert losses
        return
    assert policy.is_json(converted)
    check_numbers(strict(to_json(converted)))


@given(st.dictionaries(keys, values, max_size=5), st.text(max_size=20))
def test_any_event_becomes_strict_json(properties: Any, text: str) -> None:
    """Whatever is in its properties and fields; both roads come to the same."""
    policy, ids = ValuePolicy(), InsertIds()
    fields = {"user_id": text, "city": text, "event_properties": properties}
    event = Event(event_type=text, **fields)
    encoded = encode_event(
        event, policy, EventDefaults("lib/1"), wall=WALL, insert_id=ids
    )
    sent = strict(encoded.body)
    check_numbers(sent)
    assert sent["library"] == "lib/1"

    short = encode_fields(text, fields, policy)
    if short is not None:
        assert strict(short).items() <= sent.items()


@given(
    st.dictionaries(keys, st.one_of(leaves, st.lists(leaves, max_size=2)), max_size=4),
    st.text(max_size=20),
)
def test_any_batch_becomes_strict_json(attributes: Any, text: str) -> None:
    """What mParticle's models let in is JSON; what they do not, raises their error."""
    try:
        batch = Batch(
            environment="development",
            user_attributes=attributes,
            source_request_id=text,
            events=[
                CustomEvent(
                    event_name=text or "e",
                    custom_event_type="other",
                    custom_attributes=attributes,
                )
            ],
        )
        body = batch.model_dump_json(by_alias=True, exclude_none=True).encode()
    except ValidationError:
        return
    check_numbers(strict(body))


def test_the_strict_reader_is_strict() -> None:
    """It refuses what the tests above are there to find."""
    for text in (b'{"a":1,"a":1}', b"[NaN]", b"[-Infinity]"):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            strict(text)
    assert strict(b'{"a":{"b":1}}') == {"a": {"b": 1}}
    assert isinstance(Liar(str), str)
