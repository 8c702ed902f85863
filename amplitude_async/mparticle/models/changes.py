"""Checks what was put into a model's dicts and lists after it was made.

An assignment is validated, but a model hears nothing of
``batch.user_attributes["price"] = Decimal("9.99")``. So what can be changed in place is
validated again where a batch is encoded, by the rules of its field.
"""

from enum import Enum
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from amplitude_async.mparticle.models.fields import are_plain
from amplitude_async.wire import WireModel

__all__ = ["checked", "under"]

_Model = TypeVar("_Model", bound=WireModel)


def checked(model: _Model, *, attributes: str = "", but: str = "") -> _Model:
    """Validate again what can have been changed in place.

    Args:
        model: Not changed.
        attributes: A field of attributes. Nearly every event has it, and nearly all of
            them are as they should be, which a short look tells.
        but: A field to leave as it is.

    Returns:
        The model itself where all is as it should be, otherwise a copy.

    Raises:
        pydantic.ValidationError: Something cannot be sent; the error says where.
    """
    values = model.__dict__
    changes: dict[str, Any] = {}
    # What was never set is a default, and no default is a container.
    for name in model.__pydantic_fields_set__:
        value = values.get(name)
        kind = type(value)
        if kind is str or kind is int or value is None or name == but:
            continue
        if name == attributes and kind is dict and are_plain(value):
            continue
        now = _checked_value(model, name, value)
        if now is not value:
            changes[name] = now
    return model.model_copy(update=changes) if changes else model


def _checked_value(model: WireModel, name: str, value: Any) -> Any:
    if isinstance(value, WireModel):
        return _checked_part(value, name)
    if isinstance(value, (float, bool, Enum)):
        return value
    copy = model.model_copy()
    setattr(copy, name, value)
    # Containers are new in any case, models in them only where they changed.
    made = copy.__dict__[name]
    if isinstance(made, dict):
        return {key: _checked_part(item, name, str(key)) for key, item in made.items()}
    if isinstance(made, list):
        return [_checked_part(item, name, index) for index, item in enumerate(made)]
    return made


def _checked_part(part: Any, *where: str | int) -> Any:
    if not isinstance(part, WireModel):
        return part
    try:
        return checked(part)
    except ValidationError as error:
        raise under(error, *where) from None


def under(error: ValidationError, *where: str | int) -> ValidationError:
    """Say of an error that it lies deeper, under a field or an index."""
    lines = [
        InitErrorDetails(
            # An instance, since our own error types have no template.
            type=PydanticCustomError(
                detail["type"], "{message}", {"message": detail["msg"]}
            ),
            loc=(*where, *detail["loc"]),
            input=detail["input"],
        )
        for detail in error.errors(include_url=False, include_context=False)
    ]
    # What is wrong is said in words; the input itself may be a key.
    return ValidationError.from_exception_data(error.title, lines, hide_input=True)
