"""How values of others are shown in messages: short, on one line, and never raising.

A value may be huge, hold escapes that a terminal obeys, or have a ``__repr__`` that
raises. What names it to a person uses `shown`, never ``!r``.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

__all__ = ["kind_of", "printable", "shown"]

_MOST = 80
_MOST_ITEMS = 10
_MOST_LEVELS = 3
# A decimal number of more bits does not fit into a message.
_MOST_BITS = 256

# The name that a class was given, whatever its metaclass says.
_NAME_OF: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__


def shown(value: object, most: int = _MOST) -> str:
    """Show a value as ``repr`` would, in so many printable characters at the most."""
    return printable(_shown(value, most, _MOST_LEVELS))[:most]


def kind_of(value: object) -> str:
    """Name the class of a value, fit for a message."""
    return printable(_NAME_OF(type(value))[:_MOST])


def printable(text: str) -> str:
    """Spell out what is no printable character: line ends, escapes, surrogates."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _shown(value: object, most: int, levels: int) -> str:
    kind = type(value)
    if kind in _BRACKETS:
        return _container(value, most, levels - 1)
    try:
        if isinstance(value, str | bytes) and kind in {str, bytes}:
            return repr(value[:most])
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            return f"<{kind_of(value)} of {value.bit_length()} bits>"
        # Not f"{value!r}": what repr returns may be a class of theirs, too.
        return str.__str__(repr(value))[: 2 * most]
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - their own code
        return f"<{kind_of(value)}>"


def _container(value: Any, most: int, levels: int) -> str:
    opening, closing = _BRACKETS[type(value)]
    if not value:
        return repr(value)
    if levels < 0:
        return f"{opening}...{closing}"
    if type(value) is dict:
        parts: Iterable[str] = (
            f"{_shown(key, most, levels)}: {_shown(item, most, levels)}"
            for key, item in islice(value.items(), _MOST_ITEMS)
        )
    else:
        parts = (_shown(item, most, levels) for item in islice(value, _MOST_ITEMS))
    listed = ", ".join(parts)
    if len(value) > _MOST_ITEMS:
        listed += ", ..."
    elif type(value) is tuple and len(value) == 1:
        listed += ","
    return f"{opening}{listed}{closing}"


_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    dict: ("{", "}"),
}
