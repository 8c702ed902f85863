"""What a verb was given becomes one event: type or object, options, keyword fields."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from pydantic import ValidationError

from amplitude_async.amplitude.events import (
    ATTRIBUTE_OF,
    INPUT_NAMES,
    Event,
    EventFields,
    EventOptions,
)
from amplitude_async.amplitude.fields import few_properties, unknown_field
from amplitude_async.amplitude.filling import filled, missing_fields, put_into
from amplitude_async.amplitude.leniency import explain, leave_out, unusable
from amplitude_async.amplitude.typed import TypedEvent
from amplitude_async.binding import Fields
from amplitude_async.delivery.outcome import Outcome
from amplitude_async.delivery.reporting import named
from amplitude_async.encoding import Loss
from amplitude_async.exceptions import AmplitudeError
from amplitude_async.shown import kind_of, shown

__all__ = [
    "build_event",
    "check_field_names",
    "check_kind",
    "check_loop_runs",
    "check_own_fields",
    "compose",
    "compose_without",
    "copied",
    "invalid",
    "merge_options",
    "stand_in",
]

_OPTION_NAMES: Final = frozenset(EventOptions.model_fields)

# Dicts of an event that plugins may fill in.
_DICT_FIELDS: Final = (
    "event_properties",
    "user_properties",
    "groups",
    "group_properties",
    "extra",
)

# What the verbs beside track make, and where to put what was meant.
_MADE_BY_VERBS: Final = {
    "identify": (
        ("user_properties",),
        "chain operations such as Identify().set('plan', 'pro')",
    ),
    "group_identify": (
        ("groups", "group_properties"),
        "give the group by place and its properties in the Identify",
    ),
    "set_group": (
        ("groups", "user_properties"),
        "call it once for each type of group",
    ),
}


def compose(
    event: Event | TypedEvent | str,
    options: EventOptions | None,
    fields: EventFields,
    bound: Fields | None = None,
) -> Event:
    """Make the event that a verb was asked to track.

    Args:
        event: an Event, a TypedEvent or an event type; it is not changed.
        options: win over the event's own fields.
        fields: win over the options.
        bound: what is bound where it is tracked; all of these win over it.

    Raises:
        TypeError: an unknown field name or a wrong kind of argument.
        pydantic.ValidationError: a value is bad.
    """
    made = _compose(event, options, fields)
    return made if bound is None else filled(made, bound)


def _compose(
    event: Event | TypedEvent | str,
    options: EventOptions | None,
    fields: EventFields,
) -> Event:
    if options is not None:
        _check_options(options)
    given = cast("Mapping[str, Any]", fields)
    if isinstance(event, str):
        return build_event(event, options, given)
    if isinstance(event, TypedEvent):
        check_field_names(given)
        event = _made_by(event, given.get("event_properties"))
        # Taken out, or it would replace the class's own properties further down.
        given = {k: v for k, v in given.items() if k != "event_properties"}
    elif not isinstance(event, Event):
        msg = f"event={shown(event)} must be an Event, a TypedEvent or an event type"
        raise TypeError(msg)
    return merge_options(event, options, given)


def _made_by(typed: TypedEvent, properties: Any) -> Event:
    """Make the event of a class that may have methods of its own.

    Raises:
        pydantic.ValidationError: A value is bad, or a method of the class raised.
    """
    kind = type(typed)
    try:
        made: object = typed.to_event(event_properties=properties)
    except ValidationError:
        raise
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
        problem = f"making the event raised {named(error):.150}: mend the class"
        raise unusable(kind, kind.__name__, typed, problem) from None
    if isinstance(made, Event):
        return made
    problem = f"to_event returned {kind_of(made)}: return an Event"
    raise unusable(kind, kind.__name__, typed, problem)


def _check_options(options: object) -> None:
    if isinstance(options, Event):
        msg = (
            "options is an Event, whose type and properties would be lost: pass it as "
            "the first argument, or make EventOptions of what is shared"
        )
        raise TypeError(msg)
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
    """Reject what pydantic found a fault in: field, value and remedy are named."""
    return Outcome.rejected(explain(error))


def compose_without(
    event: Event | TypedEvent | str,
    options: EventOptions | None,
    fields: EventFields,
    bound: Fields | None,
    *,
    losses: list[Loss],
) -> Event:
    """Make an event without the bad values that it can do without.

    Args:
        event: As for `compose`, which raised.
        options: As there.
        fields: As there.
        bound: As there.
        losses: Receives what was left out.

    Raises:
        pydantic.ValidationError: A value is bad, and the event cannot do without.
    """
    left = cast("dict[str, Any]", dict(fields))
    event_type = event if isinstance(event, str) else event.event_type

    def make() -> Event:
        return _compose(event, options, cast("EventFields", left))

    made = _without_bad(make, event_type, left, losses)
    missing = missing_fields(made, bound or {})

    def fill() -> Event:
        return merge_options(made, None, missing)

    return _without_bad(fill, event_type, missing, losses)


def _without_bad(
    make: Callable[[], Event],
    event_type: str,
    fields: dict[str, Any],
    losses: list[Loss],
) -> Event:
    """Make an event again and again, each time with fewer of these fields."""
    while True:
        try:
            return make()
        except ValidationError as error:
            losses += leave_out(error, event_type, fields)


def check_own_fields(verb: str, fields: EventFields, group_type: object = "") -> None:
    """Refuse fields that the verb makes itself and would overwrite.

    Raises:
        TypeError: One of them is given, or the group type can be no key.
    """
    if isinstance(group_type, list | dict | set):
        msg = f"group_type={shown(group_type)} must be text: call once for each type"
        raise TypeError(msg)
    made, remedy = _MADE_BY_VERBS[verb]
    given = cast("Mapping[str, Any]", fields)
    for name in made:
        if given.get(name) is not None:
            msg = f"{verb}() makes {name} itself: {remedy}"
            raise TypeError(msg)


def check_loop_runs() -> None:
    """Make sure that an event loop runs on this thread.

    Raises:
        AmplitudeError: None does; the message says what to call instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        msg = (
            "track_nowait needs the running event loop of the client, and none runs on "
            "this thread: await track() in a coroutine, or from another thread use "
            "asyncio.run_coroutine_threadsafe(client.track(...), loop)"
        )
        raise AmplitudeError(msg) from None


def copied(event: Event) -> Event:
    """Copy an event so far that plugins may fill in its dicts."""
    copy = event.model_copy()
    values = copy.__dict__
    for name in _DICT_FIELDS:
        # Whoever made it without validation may have put anything there.
        given = values.get(name)
        try:
            read = few_properties(given)
        except ValueError:
            continue
        if isinstance(read, dict):
            values[name] = dict(read)
    return copy


def stand_in(event: object) -> Event:
    """Build an event that can be shown where the real one could not be made."""
    if isinstance(event, Event):
        return event
    kind: object = event.event_type if isinstance(event, TypedEvent) else event
    # Not str(): a subclass may print something else than it holds, or raise.
    text = str.__str__(kind) if isinstance(kind, str) else shown(kind)
    return Event(event_type=text)


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
        put_into(event, {k: v for k, v in _given(options) if own[k] is None})
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
        put_into(merged, dict(_given(options)))
    for name, value in fields.items():
        if value is not None:
            # By assignment, unlike options: nobody has validated these yet.
            setattr(merged, ATTRIBUTE_OF.get(name, name), value)
    return merged


def _given(options: EventOptions) -> list[tuple[str, Any]]:
    # A subclass may have fields that no event has.
    return [
        (name, value)
        for name, value in options.__dict__.items()
        if value is not None and name in _OPTION_NAMES
    ]
