"""Reads JSON as strictly as servers do, and knows what it costs to keep.

Twenty megabytes of brackets are half a gigabyte of values: what is read is weighed
before it is parsed.
"""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["MAX_WEIGHT", "UnreadableError", "parse", "text_of", "weigh"]

MAX_WEIGHT = 256 * 1024 * 1024
"""Most that one request may weigh."""

# What a value takes besides its text, and a place in the one that holds it.
_VALUE = 64
# Each value but the outermost one stands behind one of these.
_STARTS = (b"[", b"{", b",", b":")
# One character beyond the common ones makes all of a text as wide.
_WIDEST = 4


class UnreadableError(ValueError):
    """A body is no JSON; the message says why, without what is in it."""


def weigh(body: bytes) -> int:
    """Return about the most bytes of memory that the values of some JSON take."""
    wide = not body.isascii() or b"\\u" in body
    values = sum(body.count(start) for start in _STARTS)
    return len(body) * (_WIDEST if wide else 1) + _VALUE * values


def parse(body: bytes) -> Any:
    """Return the values of some JSON that any reader would take.

    Raises:
        UnreadableError: it is none, or has numbers that are none elsewhere.
    """
    try:
        return json.loads(
            body.decode(), parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError:
        msg = "nested too deep"
        raise UnreadableError(msg) from None
    except UnicodeDecodeError:
        msg = "not UTF-8"
        raise UnreadableError(msg) from None
    except ValueError as error:
        raise UnreadableError(str(error)) from None


def text_of(value: object) -> str:
    """Return an id as text, and no text where it is neither text nor a number."""
    # type() and not isinstance(): true and false are no numbers.
    return str(value) if type(value) in (str, int) else ""


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        msg = f"the number {text[:20]} is too large for a JSON reader"
        raise ValueError(msg)
    return number


def _refuse_constant(name: str) -> object:
    # Python's extension of JSON, which servers refuse.
    msg = f"{name} is no JSON"
    raise ValueError(msg)
