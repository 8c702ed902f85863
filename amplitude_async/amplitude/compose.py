"""What a verb was given becomes one event: type or object, options, keyword fields."""

from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic import ValidationError

from amplitude_async.amplitude.events import (
    ATTRIBUTE_OF,
    INPUT_NAMES,
    Event,
    EventFields,
    EventOptions,
)
from amplitude_async.amplitude.fields import unknown_field
from amplitude_async.amplitude.typed import TypedEvent
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.shown import shown

__all__ = [
    "build_event",
    "check_field_names",
    "check_kind",
    "compose",
    "invalid",
    "merge_options",
    "stand_in",
]

_OPTION_NAMES: Final = frozenset(EventOptions.model_fields)


def compose(
    event: Event | TypedEvent | str,
    options: EventOptions | None,
    fields: EventFields,
) -> Event:
    """Make the event that a verb was asked to track.

    Args:
        event: an Event, a TypedEvent or an event type; it is not changed.
        options: win over the event's own fields.
        fields: win over the options.

    Raises:
        TypeError: an unknown field name or a wrong kind of argument.
        pydantic.ValidationError: a value is bad.
    """
    if options is not None:
        _check_options(options)
    given = cast("Mapping[str, Any]", fields)
    if isinstance(event, str):
        return build_event(event, options, given)
    if isinstance(event, TypedEvent):
        check_field_names(given)
        # Taken out, or it would replace the class's own properties further down.
        extra = fields.pop("event_properties", None) or {}
        event = event.to_event(event_properties=extra)
    elif not isinstance(event, Event):
        msg = f"event={shown(event)} must be an Event, a TypedEvent or an event type"
        raise TypeError(msg)
    return merge_options(event, options, given)


def _check_options(options: object) -> None:
    if isinstance(options, EventOptions):
        return
    hint = (
        ": properties go in event_properties=" if isinstance(options, Mapping) else ""
    )
    msg = f"options={shown(options)} must be EventOptions{hint}"
    raise TypeError(msg)


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuse an argument of another kind.

    Raises:
        TypeError: names the argument, its value and the kind.
    """
    if not isinstance(value, kind):
        msg = f"{name}={shown(value)} must be an instance of {kind.__name__}"
        raise TypeError(msg)


def invalid(error: ValidationError) -> Outcome:
    """Say field, value and remedy of what pydantic found."""
    parts = [
        f"{'.'.join(map(str, item['loc']))}={shown(item['input'])}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False)
    ]
    return Outcome.rejected("; ".join(parts))


def stand_in(event: object) -> Event:
    """Build an event that can be shown where the real one could not be made."""
    if isinstance(event, Event):
        return event
    if isinstance(event, TypedEvent):
        return Event(event_type=event.event_type)
    return Event(event_type=str(event))


def check_field_names(fields: Mapping[str, Any]) -> None:
    """Refuse names that no event field has.

    Raises:
        TypeError: Names the unknown field and the one probably meant.
    """
    if fields.keys() <= INPUT_NAMES:
        return
    unknown = next(name for name in fields if name not in INPUT_NAMES)
    if unknown == "event_type":
        raise TypeError("event_type is the first argument, not a keyword field")
    raise TypeError(unknown_field(unknown, Event))


def build_event(
    event_type: str, options: EventOptions | None, fields: Mapping[str, Any]
) -> Event:
    """Make an event from its type; explicit fields win over options.

    Raises:
        TypeError: A field name is unknown.
        pydantic.ValidationError: A value is bad.
    """
    check_field_names(fields)
    event = Event(event_type=event_type, **fields)
    if options is not None:
        own = event.__dict__
        _fill(event, {k: v for k, v in _given(options) if own[k] is None})
    return event


def merge_options(
    event: Event, options: EventOptions | None, fields: Mapping[str, Any]
) -> Event:
    """Lay options, and over them explicit fields, over an event.

    Fields that are None overwrite nothing. The arguments are not changed; without
    options and fields the event itself comes back, otherwise a shallow copy.

    Raises:
        TypeError: A field name is unknown.
        pydantic.ValidationError: A value is bad.
    """
    if options is None and not fields:
        return event
    check_field_names(fields)
    merged = event.model_copy()
    if options is not None:
        _fill(merged, dict(_given(options)))
    for name, value in fields.items():
        if value is not None:
            # By assignment, unlike options: nobody has validated these yet.
            setattr(merged, ATTRIBUTE_OF.get(name, name), value)
    return merged


def _given(options: EventOptions) -> list[tuple[str, Any]]:
    # An Event is an EventOptions too: its type and properties are no options.
    return [
        (name, value)
        for name, value in options.__dict__.items()
        if value is not None and name in _OPTION_NAMES
    ]


def _fill(event: Event, values: Mapping[str, Any]) -> None:
    # The values come out of a validated model: validating again would triple the cost.
    event.__dict__.update(values)
    event.__pydantic_fields_set__.update(values)
