"""What an event can do without where a value is bad, and words for what it cannot.

Who it is about, what happened, when and with which properties: a bad value there costs
the event, since it would say something else without. Everything beside that is left
out, as a property without a JSON form is.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from amplitude_async.amplitude.events import (
    ATTRIBUTE_OF,
    GROUP_IDENTIFY,
    IDENTIFY,
    Event,
)
from amplitude_async.delivery.reporting import named
from amplitude_async.encoding import Loss
from amplitude_async.shown import shown

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

# Where the groups are what the event is about.
_ABOUT_GROUPS: Final = frozenset({IDENTIFY, GROUP_IDENTIFY})


def explain(error: ValidationError) -> str:
    """Say field, value and remedy of what pydantic found."""
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}={shown(item['input'])}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False)
    )


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
    for name in (*kind.model_fields, *kind.model_computed_fields):
        try:
            write(name)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
            why = named(error)
            for wrapping in _WRAPPINGS:
                why = why.removeprefix(wrapping)
            value = model.__dict__.get(name, why)
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
    for item in error.errors(include_url=False, include_context=False):
        name, *below = item["loc"] or ("",)
        attribute = ATTRIBUTE_OF.get(str(name), str(name))
        path = attribute
        groups = fields.get("groups")
        if attribute == "groups" and groups and event_type not in _ABOUT_GROUPS:
            if below and isinstance(groups, Mapping):
                path = f"groups.{below[0]}"
                kept = {k: v for k, v in groups.items() if k != below[0]}
                fields["groups"] = kept
            else:
                fields.pop("groups", None)
        else:
            spellings = [n for n in fields if ATTRIBUTE_OF.get(n, n) == attribute]
            if attribute in _ESSENTIAL or not (spellings or attribute in losses):
                raise error
            for spelling in spellings:
                del fields[spelling]
        losses[path] = Loss(path, item["msg"])
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
