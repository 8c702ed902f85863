"""What an event can do without where a value is bad, and words for what it cannot.

Who it is about, what happened, when and with which properties: a bad value there costs
the event, since it would say something else without. Everything beside that is left
out, as a property without a JSON form is.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from amplitude_async.amplitude.events import (
    ATTRIBUTE_OF,
    GROUP_IDENTIFY,
    IDENTIFY,
    Event,
)
from amplitude_async.amplitude.fields import few_properties
from amplitude_async.delivery.reporting import named
from amplitude_async.encoding import Loss
from amplitude_async.shown import printable, shown

__all__ = ["culprit", "explain", "leave_out", "sound", "unusable"]

_ESSENTIAL: Final = frozenset(
    {
        "event_type",
        "user_id",
        "device_id",
        "time",
        "insert_id",
        "event_properties",
        "user_properties",
        "groups",
        "group_properties",
    }
)

# What pydantic puts before the error of a serializer, from outside to inside.
_WRAPPINGS: Final = (
    "PydanticSerializationError: ",
    "Error serializing to JSON: ",
    "PydanticSerializationError: ",
)

_LABEL: Final = 80

# Where the groups are what the event is about.
_ABOUT_GROUPS: Final = frozenset({IDENTIFY, GROUP_IDENTIFY})


def explain(error: ValidationError) -> str:
    """Say field, value and remedy of what pydantic found."""
    return "; ".join(
        f"{'.'.join(map(_label, item['loc']))}={shown(item['input'])}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False)
    )


def _label(part: object) -> str:
    """Name a step of a path, which may be a key that somebody else has chosen."""
    return printable(str(part)[:_LABEL])


def _without(groups: object, names: AbstractSet[object]) -> dict[Any, Any] | None:
    """Take the groups that pydantic complains of out of a copy; None where all go."""
    try:
        given = few_properties(groups)
    except ValueError:
        return None
    if not isinstance(given, dict):
        return None
    # A key that is no text is named by its repr, so no such key can be told from
    # another. It goes by its type, as it may be equal to whatever it likes.
    kept = {
        key: value
        for key, value in given.items()
        if isinstance(key, str) and str.__str__(key) not in names
    }
    # The validator must have something less to look at each time.
    return kept if len(kept) < len(given) else None


def unusable(
    model: type[BaseModel], field: str, value: object, problem: str
) -> ValidationError:
    """Make pydantic's error for what its own checks do not see."""
    kind = PydanticCustomError("unusable_value", "{problem}", {"problem": problem})
    detail = InitErrorDetails(type=kind, loc=(field,), input=value)
    return ValidationError.from_exception_data(model.__name__, [detail])


def culprit(model: BaseModel, write: Callable[[str], object]) -> ValidationError:
    """Find out which field of a model cannot be written down, and make the error.

    Args:
        model: Whose own serializers raise, or give no object.
        write: Writes down the field of that name alone.
    """
    kind = type(model)
    extra = model.__pydantic_extra__ or {}
    for name in (*kind.model_fields, *kind.model_computed_fields, *extra):
        try:
            write(name)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
            why = named(error)
            for wrapping in _WRAPPINGS:
                why = why.removeprefix(wrapping)
            value = extra.get(name, model.__dict__.get(name, why))
            problem = (
                f"cannot be sent ({why:.150}): make it text, a number, a list or a dict"
            )
            return unusable(kind, name, value, problem)
    problem = "its serializer gives no object: let it return a dict"
    return unusable(kind, kind.__name__, model, problem)


def leave_out(
    error: ValidationError, event_type: object, fields: dict[str, Any]
) -> list[Loss]:
    """Take bad values out of the fields of an event, where it can do without.

    Args:
        error: What pydantic found in the fields.
        event_type: Decides whether the event can do without its groups.
        fields: Changed: bad values are gone from it. A mapping of groups is replaced,
            as it is the caller's.

    Returns:
        What was left out, and why.

    Raises:
        pydantic.ValidationError: The same, where the event cannot do without.
    """
    losses: dict[str, Loss] = {}
    bad_groups: set[object] = set()
    for item in error.errors(include_url=False, include_context=False):
        name, *below = item["loc"] or ("",)
        attribute = ATTRIBUTE_OF.get(str(name), str(name))
        path = attribute
        groups = fields.get("groups")
        if (
            attribute == "groups"
            and groups is not None
            and event_type not in _ABOUT_GROUPS
        ):
            if below:
                path = f"groups.{_label(below[0])}"
            bad_groups.add(below[0] if below else None)
        else:
            spellings = [n for n in fields if ATTRIBUTE_OF.get(n, n) == attribute]
            if attribute in _ESSENTIAL or not (spellings or attribute in losses):
                raise error
            for spelling in spellings:
                del fields[spelling]
        losses[path] = Loss(path, item["msg"])
    if bad_groups:
        fields["groups"] = _without(fields["groups"], bad_groups)
    return list(losses.values())


def sound(event: Event, losses: list[Loss]) -> Event:
    """Validate an event that need not have come by the constructor; it stays as it is.

    ``model_copy(update=...)``, ``model_construct`` and dicts that were changed in place
    hold whatever they were given.

    Args:
        event: Of any subclass; fields of its own are not looked at.
        losses: Receives what was left out.

    Returns:
        A copy whose fields hold what they say.

    Raises:
        pydantic.ValidationError: A value is bad, and the event cannot do without.
    """
    blank = Event.model_construct(event_type="")
    changes: dict[str, Any] = {}
    for name in Event.model_fields:
        value = event.__dict__.get(name)
        if value is None and name != "event_type":
            changes[name] = None
            continue
        fields = {name: value}
        while name in fields:
            try:
                blank.__pydantic_validator__.validate_assignment(
                    blank, name, fields[name]
                )
            except ValidationError as error:
                losses += leave_out(error, event.__dict__.get("event_type"), fields)
            else:
                break
        changes[name] = blank.__dict__[name] if name in fields else None
    return event.model_copy(update=changes)
