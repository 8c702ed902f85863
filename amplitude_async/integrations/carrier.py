"""Takes an identity over a queue: a few bound fields in one header of a message.

A carrier is ASCII text of at most 1 KB, ``{"v":1,"user_id":"user-1"}``, so that any
broker takes it as a header or a label. Both sides ask for it: one that sends and one
that reads, each with its own `Carrier`.

Who may write into the queue may write carriers. So what is read is checked whole, and
taken whole or not at all: identities, and properties and groups of plain values. The
worst that a forged one does is to give events a wrong identity or wrong properties.

It is a module of its own, as it is the contract between two processes, which may run
two versions of this package; and a queue that has no module here can use it as well.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from math import isfinite
from typing import Any, Final, NoReturn, cast

from pydantic import ValidationError

from amplitude_async.amplitude.events import Event, EventFields
from amplitude_async.binding import fields_here
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.encoding import DROP, ValuePolicy
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.losses import is_encodable_text
from amplitude_async.shown import shown

__all__ = ["CARRIED", "HEADER", "MAX_BYTES", "VERSION", "Carrier"]

HEADER: Final = "amplitude-carrier"
"""The name of the header, or label, that holds a carrier."""

VERSION: Final = 1
"""A carrier of another version is ignored: a name or a meaning has changed."""

MAX_BYTES: Final = 1024
"""What does not fit stays behind: first properties, then groups, then everything."""

CARRIED: Final = ("user_id", "device_id", "session_id", "groups", "event_properties")
"""All that may travel, in the order in which it gets its place."""

_IDS: Final = CARRIED[:3]
_PARTS: Final = CARRIED[3:]
_MOST_PARTS: Final = 256
_MAX_INT: Final = 2**63
# Beyond it, a value is not converted in vain.
_POLICY: Final = ValuePolicy(max_depth=2, max_bytes=MAX_BYTES)


class Carrier:
    """Writes what is bound into a header, and reads it where the message arrives.

    Args:
        carry: True for all of `CARRIED`, or the names of those that may travel; False
            writes nothing and reads nothing.

    Raises:
        ConfigurationError: a name of a field that cannot travel.
    """

    def __init__(self, carry: bool | Collection[str] = True) -> None:  # noqa: FBT001, FBT002 - the one argument
        self._names = _names_of(carry)
        self._reporter = Reporter(
            logging.getLogger("amplitude_async"), LoopClock(), "carrier"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that travel, in the order in which they get their place."""
        return self._names

    def packed(self, fields: Mapping[str, Any] | None = None) -> str | None:
        """Write fields into the text of a header; never raises.

        Args:
            fields: by default, those that are bound here.

        Returns:
            ASCII text of at most `MAX_BYTES`, or None where there is nothing to carry.
        """
        fields = fields_here() if fields is None else fields
        bound = fields or {}
        given = {n: bound[n] for n in self._names if bound.get(n) is not None}
        if not given:
            return None
        try:
            event = Event(event_type="carried", **cast("EventFields", given))
        except (TypeError, ValidationError) as error:
            self._reporter.warning("unfit", "nothing was carried: %s", error)
            return None
        return self._packed_from(event)

    def unpacked(self, header: object) -> dict[str, Any]:
        """Read the text of a header; never raises.

        Returns:
            The fields that this carrier takes. Nothing, where the header is absent,
            malformed, too long or of another version.
        """
        if header is None or not self._names:
            return {}
        try:
            found = _read(header)
        except (ValueError, RecursionError) as error:
            self._reporter.warning(
                "ignored", "the carrier of a message was ignored: %s", error
            )
            return {}
        return {name: found[name] for name in self._names if name in found}

    def _packed_from(self, event: Event) -> str | None:
        carried: dict[str, Any] = {"v": VERSION}
        for name in _IDS:
            value = getattr(event, name)
            if value is None or value == "":
                continue
            if not _FITS[name](value):
                self._reporter.warning(
                    "unfit", "nothing was carried: %s is no plain value", name
                )
                return None
            carried[name] = value
        room = MAX_BYTES - len(_written(carried))
        if room < 0:
            self._reporter.warning(
                "size",
                "nothing was carried: the ids take more than %d bytes, and are not cut",
                MAX_BYTES,
            )
            return None
        behind = 0
        for name in _PARTS:
            values = getattr(event, name)
            if values:
                fitting = _fitting(name, values, room)
                behind += len(values) - len(fitting)
                if fitting:
                    carried[name] = fitting
                    room = MAX_BYTES - len(_written(carried))
        if behind:
            self._reporter.warning(
                "left",
                "%d properties or groups were not carried: a carrier has %d bytes, "
                "for text, numbers and lists of them",
                behind,
                MAX_BYTES,
            )
        return _written(carried) if len(carried) > 1 else None

    def __repr__(self) -> str:
        return f"<Carrier of {', '.join(self._names) or 'nothing'}>"


def _names_of(carry: bool | Collection[str]) -> tuple[str, ...]:  # noqa: FBT001 - as above
    if isinstance(carry, bool):
        return CARRIED if carry else ()
    if isinstance(carry, str):
        msg = f"carry is {shown(carry)}, a text: give a list of names, or True"
        raise ConfigurationError(msg)
    for name in carry:
        if name not in CARRIED:
            msg = f"carry has {shown(name)}, which cannot travel: {', '.join(CARRIED)}"
            raise ConfigurationError(msg)
    return tuple(name for name in CARRIED if name in carry)


def _fitting(name: str, values: Mapping[str, Any], room: int) -> dict[str, Any]:
    """Give those that are plain and have room, in their order."""
    fitting: dict[str, Any] = {}
    # Here as below: of its braces, one comma is left among the others.
    room -= len(_written({name: {}})) - 1
    for key, value in islice(values.items(), _MOST_PARTS):
        plain = _POLICY.convert(value, "carried", [])
        if plain is DROP or not _is_part(name, key, plain):
            continue
        needs = len(_written({key: plain})) - 1
        if needs <= room:
            fitting[key] = plain
            room -= needs
    return fitting


def _read(header: object) -> dict[str, Any]:
    """Read a carrier that may be a stranger's.

    Raises:
        ValueError: It is none; the message holds nothing of it.
        RecursionError: It is nested.
    """
    if isinstance(header, bytes | str) and len(header) > MAX_BYTES:
        msg = f"it has more than {MAX_BYTES} characters"
        raise ValueError(msg)
    text = header.decode("ascii", "replace") if isinstance(header, bytes) else header
    if type(text) is not str:
        raise ValueError("it is no text")
    try:
        found = json.loads(text, parse_constant=_refuse)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if type(found) is not dict:
        raise ValueError("it is no JSON object")
    version = found.pop("v", None)
    if type(version) is not int or version != VERSION:
        msg = f"it is not of version {VERSION}"
        raise ValueError(msg)
    for name, value in found.items():
        fits = _FITS.get(name)
        if fits is None:
            raise ValueError("it has a field that does not travel")
        if not fits(value):
            msg = f"its {name} has a wrong type"
            raise ValueError(msg)
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _written(carried: Mapping[str, Any]) -> str:
    return json.dumps(carried, separators=(",", ":"))


def _is_id(value: object) -> bool:
    return type(value) is str and value != "" and is_encodable_text(value)


def _is_session(value: object) -> bool:
    return type(value) is int and -_MAX_INT <= value < _MAX_INT


def _is_plain(value: object) -> bool:
    if type(value) is str:
        return is_encodable_text(value)
    if type(value) is float:
        return isfinite(value)
    return type(value) is bool or _is_session(value)


def _is_part(name: str, key: object, value: object) -> bool:
    if type(key) is not str or not is_encodable_text(key):
        return False
    plain = _is_id if name == "groups" else _is_plain
    return all(map(plain, value)) if type(value) is list else plain(value)


def _are_groups(value: object) -> bool:
    return type(value) is dict and all(_is_part("groups", *i) for i in value.items())


def _are_properties(value: object) -> bool:
    return type(value) is dict and all(
        _is_part("event_properties", *item) for item in value.items()
    )


_FITS: Final[Mapping[str, Callable[[object], bool]]] = {
    "user_id": _is_id,
    "device_id": _is_id,
    "session_id": _is_session,
    "groups": _are_groups,
    "event_properties": _are_properties,
}
