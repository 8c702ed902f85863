"""How an event takes what is bound where it is tracked: its own values always win."""

from collections.abc import Mapping
from typing import Any, Final, cast

from amplitude_async.amplitude.events import (
    GROUP_IDENTIFY,
    IDENTIFY,
    Event,
    EventFields,
)
from amplitude_async.binding import MERGED, Fields

__all__ = ["filled", "filled_fields", "missing_fields", "put_into"]

_set: Final = object.__setattr__

_PROPERTIES: Final = frozenset({*MERGED, "group_properties"})

# A change of properties names those that it changes, and takes none of the request's.
_OPERATIONS: Final[Mapping[str, frozenset[str]]] = {
    IDENTIFY: _PROPERTIES,
    GROUP_IDENTIFY: _PROPERTIES | {"user_id", "device_id", "session_id"},
}


def filled_fields(event_type: str, fields: Any, bound: Fields) -> Any:
    """Lay the keyword fields of a call over what is bound; neither is changed."""
    if event_type in _OPERATIONS:
        bound = Fields(_for_type(event_type, bound))
    merged = {**bound, **fields}
    for name in bound.merging:
        if name in fields:
            below, above = bound[name], fields[name]
            if type(below) is type(above) is dict:
                merged[name] = {**below, **above}
    return merged


def filled(event: Event, bound: Fields) -> Event:
    """Fill what is bound into an event, which is not changed.

    Raises:
        pydantic.ValidationError: A bound value is bad.
    """
    try:
        valid = bound.valid
    except AttributeError:
        # Once for all events that take the same, and not at all where one is bad.
        made = Event(event_type="bound", **cast("EventFields", bound))
        valid = bound.valid = {name: made.__dict__[name] for name in bound}
    missing = missing_fields(event, valid)
    if not missing:
        return event
    if type(event) is not Event:
        copy = event.model_copy()
        put_into(copy, missing)
        return copy
    # What model_copy does, in a third of the time.
    copy = Event.__new__(Event)
    _set(copy, "__dict__", {**event.__dict__, **missing})
    _set(
        copy, "__pydantic_fields_set__", event.__pydantic_fields_set__ | missing.keys()
    )
    _set(copy, "__pydantic_extra__", event.__pydantic_extra__)
    _set(copy, "__pydantic_private__", event.__pydantic_private__)
    return copy


def put_into(event: Event, values: Mapping[str, Any]) -> None:
    """Put values of a validated model into an event, which is changed.

    They are not validated again: that would triple the cost.
    """
    event.__dict__.update(values)
    event.__pydantic_fields_set__.update(values)


def missing_fields(event: Event, bound: Mapping[str, Any]) -> dict[str, Any]:
    """Give what an event lacks of what is bound: its own values win."""
    own = event.__dict__
    missing: dict[str, Any] = {}
    for name, value in _for_type(own.get("event_type"), bound).items():
        given = own.get(name)
        if given is None:
            missing[name] = value
        elif name in MERGED:
            merged = _merged(value, given)
            if merged is not given:
                missing[name] = merged
    return missing


def _for_type(event_type: object, bound: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what an event of this type takes from nobody."""
    # Exact: an event that was made without validation may have anything here.
    without = _OPERATIONS.get(event_type) if type(event_type) is str else None
    if without is None:
        return bound
    return {name: value for name, value in bound.items() if name not in without}


def _merged(bound: Any, given: Any) -> Any:
    if given is None:
        return bound
    if isinstance(bound, dict) and isinstance(given, dict):
        return {**bound, **given}
    return given
