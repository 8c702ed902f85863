"""What is known of one user: properties, groups, revenue, and what they did."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from .index import Key
from .judgement import JsonObject
from .operations import Properties
from .reading import text_of
from .seen import Seen

__all__ = [
    "BatchPortrait",
    "Portrait",
    "SeenMParticleUser",
    "SeenUser",
    "UnknownUserError",
    "amount_of",
    "batch_keys",
    "picture",
    "picture_of_batches",
    "unknown_user",
]

_IDENTIFY = "$identify"
_GROUP_IDENTIFY = "$groupidentify"
# The order in which an id stands for the user.
_FIRST_IDENTITIES = ("customer_id", "customerid", "email")
_MOST_NAMES = 10
# Comparing an id with twenty thousand others would take a second.
_MOST_COMPARED = 1_000


@dataclass(frozen=True, slots=True)
class SeenUser:
    """One user, or device, as Amplitude would show it after what was stored."""

    id: str
    """The user id, or the device id."""

    properties: Mapping[str, Any]
    """User properties after all operations, in order of arrival."""

    groups: Mapping[str, tuple[str, ...]]
    """Names of groups by their type, as `set_group` set them last."""

    revenue: float
    """Sum over all events with an amount."""

    events: tuple[JsonObject, ...] = field(repr=False)
    """The events stored, in order of arrival."""

    devices: tuple[str, ...]
    """The devices of these events, in order of appearance."""


@dataclass(frozen=True, slots=True)
class SeenMParticleUser:
    """One user as mParticle would show it after the batches stored."""

    id: str
    """The id by which it was looked up."""

    attributes: Mapping[str, Any]
    """User attributes after all batches, in order of arrival."""

    identities: Mapping[str, str]
    """The newest of each kind of identity, `mpid` and `mp_deviceid` included."""

    batches: tuple[JsonObject, ...] = field(repr=False)
    """The batches stored, in order of arrival."""

    events: tuple[JsonObject, ...] = field(repr=False)
    """The events in them, in order of arrival."""


class UnknownUserError(KeyError):
    """Nothing of this user was stored; the message names those that are known."""

    def __str__(self) -> str:
        """Return the message as it is, where a KeyError would put quotes around it."""
        return str(self.args[0]) if self.args else ""


def unknown_user(
    name: str, known: Sequence[str], rejected: Sequence[Seen] = ()
) -> UnknownUserError:
    """Return the error for a user of whom nothing was stored.

    Args:
        name: as it was asked for.
        known: the users that are known.
        rejected: events of this user that were not taken.
    """
    shown = ", ".join(repr(one[:80]) for one in known[:_MOST_NAMES])
    more = len(known) - _MOST_NAMES
    others = f" and {more:,} more" if more > 0 else ""
    message = f"nothing of user or device {name[:80]!r} was stored"
    if rejected:
        last = rejected[-1]
        message += (
            f"; {len(rejected):,} of its events were not taken, the last answered "
            f"{last.status}: {last.reason}"
        )
    message += f"; known are {shown}{others}" if known else "; nobody is known yet"
    compared = list(islice(known, _MOST_COMPARED))
    near = difflib.get_close_matches(name[:80], compared, n=1)
    return UnknownUserError(
        f"{message}: did you mean {near[0]!r}?" if near else message
    )


class Portrait:
    """What the events of one Amplitude user make of it, one after the other."""

    def __init__(self) -> None:
        self.properties = Properties()
        self.groups: dict[str, tuple[str, ...]] = {}
        self.devices: dict[str, None] = {}
        self._amounts: list[float] = []

    def add(self, seen: Seen) -> None:
        """Add the next event, in order of arrival."""
        event = seen.event
        kind = event.get("event_type")
        if kind == _IDENTIFY:
            self.properties.apply(event.get("user_properties"))
            self.groups.update(_groups(event.get("groups")))
        elif kind != _GROUP_IDENTIFY:
            self.properties.put(event.get("user_properties"))
        if seen.device_id:
            self.devices.setdefault(seen.device_id)
        amount = amount_of(event)
        if amount:
            self._amounts.append(amount)

    @property
    def revenue(self) -> float:
        """Sum over all events with an amount."""
        return _sum(self._amounts)


class BatchPortrait:
    """What the batches of one mParticle user make of it, likewise."""

    def __init__(self) -> None:
        self.attributes = Properties()
        self.identities: dict[str, str] = {}

    def add(self, batch: JsonObject) -> None:
        """Add the next batch, in order of arrival."""
        self.attributes.drop(batch.get("deleted_user_attributes"))
        self.attributes.put(batch.get("user_attributes"))
        self.identities.update(_identities(batch))


def picture(name: str, found: Sequence[Seen]) -> SeenUser:
    """Return what the events of one user make of it."""
    portrait = Portrait()
    for seen in found:
        portrait.add(seen)
    return SeenUser(
        id=name,
        properties=portrait.properties.as_dict(),
        groups=portrait.groups,
        revenue=portrait.revenue,
        events=tuple(seen.event for seen in found),
        devices=tuple(portrait.devices),
    )


def picture_of_batches(name: str, found: Sequence[Seen]) -> SeenMParticleUser:
    """Return what the batches of one mParticle user make of it."""
    batches = tuple(seen.event for seen in found)
    portrait = BatchPortrait()
    for batch in batches:
        portrait.add(batch)
    return SeenMParticleUser(
        id=name,
        attributes=portrait.attributes.as_dict(),
        identities=portrait.identities,
        batches=batches,
        events=tuple(event for batch in batches for event in batch.get("events") or ()),
    )


def batch_keys(batch: JsonObject) -> Iterator[Key]:
    """Return under which ids an mParticle batch is found."""
    identities = _identities(batch)
    order = (*_FIRST_IDENTITIES, "mpid", *identities)
    first = next((identities[kind] for kind in order if kind in identities), None)
    if first is None:
        return
    yield "user", first
    for name in dict.fromkeys(identities.values()):
        yield "device", name


def _identities(batch: JsonObject) -> dict[str, str]:
    named = batch.get("user_identities")
    found = dict(named) if isinstance(named, Mapping) else {}
    for kind in ("mpid", "mp_deviceid"):
        found[kind] = batch.get(kind)
    texts = {str(kind): text_of(value) for kind, value in found.items()}
    return {kind: text for kind, text in texts.items() if text}


def _groups(groups: object) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind, names in groups.items() if isinstance(groups, Mapping) else ():
        listed = names if isinstance(names, list) else [names]
        yield str(kind), tuple(text_of(name) for name in listed if text_of(name))


def amount_of(event: JsonObject) -> float | None:
    """Return the revenue of one event, None where it has none."""
    properties = event.get("event_properties")
    inside = properties if isinstance(properties, Mapping) else {}
    revenue = _number(inside.get("$revenue"))
    if revenue is None:
        revenue = _product(inside.get("$price"), inside.get("$quantity"))
    if revenue is None:
        revenue = _product(event.get("price"), event.get("quantity"))
    # As at Amplitude: price and quantity win over the event's own revenue.
    return _number(event.get("revenue")) if revenue is None else revenue


def _product(price: object, quantity: object) -> float | None:
    amount = _number(price)
    times = 1.0 if quantity is None else _number(quantity)
    if amount is None or times is None:
        return None
    product = amount * times
    return product if math.isfinite(product) else None


def _number(value: object) -> float | None:
    # type() and not isinstance(): true and false are no amounts.
    if type(value) is int or type(value) is float:
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def _sum(amounts: Iterable[float]) -> float:
    try:
        # Not sum(): 0.1 three times is 0.3, as a test expects.
        return math.fsum(amounts)
    except OverflowError:
        return math.inf
