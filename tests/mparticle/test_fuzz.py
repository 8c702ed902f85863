"""Whatever has the shape of a batch: it is refused in order, or sent as strict JSON.

The inputs are drawn from the models themselves: the right names, with values of which
some are hostile. The seed is fixed; the long profile of Hypothesis throws more dice.
"""

import enum
import json
import logging
import math
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from amplitude_async import mparticle
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.mparticle import (
    BaseEvent,
    Batch,
    BatchError,
    GenericEvent,
    MParticleConfig,
    ProfileEvent,
    encode_batch,
)
from amplitude_async.mparticle.door import MParticleDoor
from amplitude_async.testing import FakeClock

__all__: list[str] = []

Json = dict[str, Any]
MS = 1_772_323_200_000
# The one rule that is kept where a batch is encoded and not where it is made.
HALF = "one of previous_mpid and current_mpid is missing"
ID = "0b0a9c8e-1111-4222-8333-944445555666"


class Broken:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        msg = "no repr"
        raise RuntimeError(msg)


class Colour(enum.Enum):
    """An enum of no vendor."""

    RED = "red"
    ODD = object()


# With halves of surrogate pairs: text of Python that is no Unicode.
anything = st.text(st.characters(), max_size=8)
names = st.text(min_size=1, max_size=8)
# What some field takes; which of them, each field is asked.
PLAIN: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 2**63 - 1, -(2**63), 0.5, "", "a", "USD"),
    *(MS, float(MS), str(MS), ID, "ü\u2028", '"', '","environment":"production'),
    *({}, {"a": "b"}, {"a": [1, None]}, {"a": {"b": 0.5}}, [], ["a"], [1, "b"]),
    *(Decimal("9.99"), datetime(2026, 3, 1, tzinfo=UTC), timedelta(seconds=3)),
    uuid.UUID(ID),
]
HOSTILE = [
    2**63,
    2**64,
    10**400,
    -(10**5_000),
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    5e-324,
    "\ud800",
    '","environment":"production',
    b"bytes",
    bytearray(b"\xff"),
    Decimal("9.99"),
    Decimal("NaN"),
    Decimal("1E+400"),
    Decimal("1E-400"),
    datetime(2026, 3, 1, tzinfo=UTC),
    datetime(2026, 3, 1, tzinfo=UTC).replace(tzinfo=None),
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC),
    date(2026, 3, 1),
    timedelta.max,
    timedelta(seconds=-1),
    uuid.UUID(ID),
    Colour.RED,
    Colour.ODD,
    Broken(),
    object(),
    (1, 2),
    frozenset({1, "a"}),
    {"a": {"b": [1, None, math.nan]}},
    {1: 2, None: 3},
    {"": 1},
    {"\ud800": 1},
    [[1], [2, [3]]],
    "9" * 5_000,
    complex(1, 2),
    range(3),
]


def hostile_one(number: int) -> Any:
    """Pick by number: Hypothesis shows its strategies, and some values cannot be."""
    return HOSTILE[number]


hostile = st.integers(0, len(HOSTILE) - 1).map(hostile_one)
leaves = st.sampled_from(PLAIN) | hostile | anything
values = leaves | st.lists(leaves, max_size=3) | st.dictionaries(anything, leaves)


def fields_of(model: type[BaseModel], name: str) -> st.SearchStrategy[Any]:
    """Return values of a field: mostly what it takes, now and then anything."""
    inside = shaped(model.model_fields[name].annotation)
    fitting = [value for value in PLAIN if fits(model, name, value)]
    usual = inside if inside is not None else st.sampled_from(fitting)
    return st.integers(0, 59).flatmap(lambda dice: usual if dice else values)


def fits(model: type[BaseModel], name: str, value: object) -> bool:
    """Tell whether a field takes a value."""
    empty = model.model_construct()
    try:
        model.__pydantic_validator__.validate_assignment(empty, name, value)
    except ValidationError as error:
        return all(detail["loc"][:1] != (name,) for detail in error.errors())
    return True


def shaped(annotation: Any) -> st.SearchStrategy[Any] | None:
    """Return values in the shape of a type that has models in it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.deferred(lambda: objects(annotation))
    inner = [one for one in map(shaped, parts) if one is not None]
    if not inner:
        return None
    if origin is list:
        return st.lists(inner[0], max_size=3)
    if origin is dict:
        return st.dictionaries(
            names | st.just("data_sale_opt_out"), inner[-1], max_size=3
        )
    return st.one_of(inner)


def objects(model: type[BaseModel]) -> st.SearchStrategy[Json]:
    """Return dicts with fields of a model, by the names they have on the wire."""
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        if name not in {"event_type", "events"}:
            home = required if info.is_required() else optional
            home[info.serialization_alias or name] = fields_of(model, name)
    if model is Batch:
        required["environment"] = st.sampled_from(["development", "production"])
        required["events"] = st.lists(events, max_size=3)
    return st.fixed_dictionaries(required, optional=optional)


KINDS = {
    kind.model_fields["event_type"].default: kind
    for kind in vars(mparticle).values()
    if isinstance(kind, type)
    and issubclass(kind, (BaseEvent, GenericEvent))
    and kind not in {BaseEvent, GenericEvent}
}
events = st.deferred(
    lambda: st.one_of(
        *(
            objects(kind).flatmap(
                lambda data, name=name: st.sampled_from(  # type: ignore[misc]
                    [
                        {"event_type": name, "data": data},
                        {"event_type": name, **data},
                    ]
                )
            )
            for name, kind in KINDS.items()
        ),
        st.fixed_dictionaries(
            {"event_type": anything, "data": st.dictionaries(anything, values)}
        ),
        values,
    )
)


def only_once(pairs: list[tuple[str, Any]]) -> Json:
    """Make an object of members that have different names."""
    made = dict(pairs)
    assert len(made) == len(pairs), pairs
    return made


def never(constant: str) -> Any:
    """Refuse NaN and its kin, which only Python reads."""
    raise AssertionError(constant)


def strictly(body: bytes) -> Json:
    """Read JSON as strictly as the strictest server."""
    found: Json = json.loads(
        body.decode("utf-8"), object_pairs_hook=only_once, parse_constant=never
    )
    return found


def told(fields: Json) -> Batch | None:
    """Read a batch, or None where it is refused."""
    try:
        return Batch.model_validate(fields)
    except ValidationError as error:
        problem = str(error)
    # An error that cannot be shown is none.
    assert problem
    return None


def is_half(event: Any) -> bool:
    """Tell a profile event that names one user of two."""
    return isinstance(event, ProfileEvent) and (event.previous_mpid is None) != (
        event.current_mpid is None
    )


DOOR = MParticleDoor(
    MParticleConfig(api_key="k", api_secret="s", limits="off"),
    Reporter(logging.getLogger("fuzz"), FakeClock(), "mparticle"),
)


@seed(13)
@given(objects(Batch))
def test_a_batch_is_refused_or_sent_as_strict_json(fields: Json) -> None:
    """Nothing but a ValidationError says no; what is taken goes out and comes back."""
    batch = told(fields)
    if batch is None:
        return
    if any(map(is_half, batch.events)):
        with pytest.raises(ValueError, match=HALF):
            encode_batch(batch)
        return
    wire = strictly(encode_batch(batch))
    assert batch.to_wire() == wire
    assert strictly(encode_batch(Batch.model_validate(wire))) == wire
    [piece] = DOOR.prepare(batch, MS / 1000)
    sent = strictly(piece.body)
    assert piece.request_id == sent["source_request_id"]
    assert strictly(encode_batch(piece.to_batch())) == sent


@seed(14)
@given(
    objects(Batch),
    st.lists(st.tuples(st.integers(0, 9), anything, values), min_size=1, max_size=3),
)
def test_what_is_put_in_later_is_refused_or_sent_as_strict_json(
    fields: Json, changes: list[tuple[int, Any, Any]]
) -> None:
    """Whatever is put into a dict or list of a batch, its JSON stays strict."""
    batch = told(fields)
    if batch is None:
        return
    for place, name, value in changes:
        inside = list(containers(batch))
        home = inside[place % len(inside)]
        if isinstance(home, dict):
            home[name] = value
        else:
            home.append(value)
    try:
        [piece] = DOOR.prepare(batch, MS / 1000)
    except BatchError:
        return
    sent = strictly(piece.body)
    assert strictly(encode_batch(piece.to_batch())) == sent


def containers(model: BaseModel) -> Iterator[Any]:
    """Find every dict and list in a model."""
    for value in vars(model).values():
        if isinstance(value, BaseModel):
            yield from containers(value)
        elif isinstance(value, (dict, list)):
            yield value
            inner = value.values() if isinstance(value, dict) else value
            for one in list(inner):
                if isinstance(one, BaseModel):
                    yield from containers(one)
