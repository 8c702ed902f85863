"""The verbs of bound fields: what is bound here goes into every event tracked here."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Unpack, cast

from amplitude_async.amplitude.compose import check_field_names
from amplitude_async.amplitude.events import ATTRIBUTE_OF, EventFields
from amplitude_async.amplitude.fields import few_properties
from amplitude_async.binding import Kind, Opened, fields_here, put_here

__all__ = ["bind", "bindings", "bound"]

# What makes each event the one that it is.
_OF_ONE_EVENT: Final = frozenset({"time", "insert_id"})


def bind(**fields: Unpack[EventFields]) -> None:
    """Fill fields into every event tracked from here on in the current scope.

    An event's own fields win, and those of its call. Dicts merge one level
    (``event_properties``, ``user_properties``, ``groups``). None takes a field out.

    The scope is the innermost ``with bound(...)`` or the request, where a middleware
    opened one for it; else it is the current task or thread alone.

    Args:
        fields: fields of ``Event``. Bad values are found when an event takes them.

    Raises:
        TypeError: an unknown field name, or one that each event has for itself.
    """
    put_here(_bindable(fields))


class bound:  # noqa: N801 - used like a function, and the contract's name
    """A scope of its own for a block: ``with bound(user_id="user-1"):``.

    What is bound outside stays bound inside, and what the block binds ends with it.
    Tasks and threads started in the block keep its fields.

    Args:
        fields: as for `bind`.

    Raises:
        TypeError: as for `bind`.
    """

    def __init__(self, **fields: Unpack[EventFields]) -> None:
        self._opened = Opened(_bindable(fields), Kind.AROUND)

    def __enter__(self) -> None:
        self._opened.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, traceback)


def bindings() -> dict[str, Any]:
    """Give a copy of what is bound here, by the names of the fields."""
    found: Mapping[str, Any] = fields_here() or {}
    return {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in found.items()
    }


def _bindable(fields: EventFields) -> dict[str, Any]:
    given = cast("Mapping[str, Any]", fields)
    check_field_names(given)
    if not _OF_ONE_EVENT.isdisjoint(given):
        name = next(name for name in given if name in _OF_ONE_EVENT)
        msg = f"{name} cannot be bound: each event has its own, so give it there"
        raise TypeError(msg)
    return {ATTRIBUTE_OF.get(n, n): _copied(value) for n, value in given.items()}


def _copied(value: Any) -> Any:
    if type(value) is str:
        return value  # as nearly all are, and looking for a mapping takes a while
    try:
        read = few_properties(value)
    except ValueError:
        return value  # the event that takes it says what is wrong with it
    return dict(read) if isinstance(read, dict) else read
