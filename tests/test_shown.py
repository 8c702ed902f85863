"""What messages show of a value: short, printable, and whatever its own code does."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amplitude_async.shown import kind_of, printable, shown

__all__: list[str] = []


def named(name: str, **members: Any) -> Any:
    """Make an object whose class has this name and these members."""
    return type(name, (), members)()


def raising(error: BaseException) -> Any:
    """Make an object whose repr raises."""

    def fail(_self: object) -> str:
        raise error

    return named("Broken", __repr__=fail)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        1.5,
        "text",
        b"bytes",
        [],
        [1, "a"],
        (1,),
        (1, 2),
        {3},
        set(),
        {"a": [1, {"b": ()}]},
        int,
    ],
)
def test_plain_values_are_shown_as_repr_does(value: object) -> None:
    """Whoever reads a message sees what they wrote."""
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), asyncio.CancelledError(), RecursionError()]
)
def test_a_repr_that_raises_is_replaced(error: BaseException) -> None:
    """The class is named, also within containers."""
    broken = raising(error)

    assert shown(broken) == "<Broken>"
    assert shown({"k": [broken]}) == "{'k': [<Broken>]}"


@pytest.mark.parametrize("answer", [None, 5, b"x"])
def test_a_repr_that_returns_no_text_is_replaced(answer: object) -> None:
    """What repr refuses has the name of its class."""
    assert shown(named("Odd", __repr__=lambda _self: answer)) == "<Odd>"


def test_nothing_reaches_a_terminal_raw() -> None:
    """Line ends, escapes and surrogates of a repr, a name or a text are spelled out."""
    evil = named("A\x1b[31m\n", __repr__=lambda _self: "x\n\x1b[0m\ud800")

    assert shown(evil) == r"x\n\x1b[0m\ud800"
    assert kind_of(evil) == r"A\x1b[31m\n"
    assert printable("plain é") == "plain é"


def test_huge_values_are_cut_before_they_are_shown() -> None:
    """A megabyte of text, a million digits and a circle come to a few characters."""
    circle: list[Any] = []
    circle.append(circle)

    assert shown("x" * 10_000_000) == "'" + "x" * 79
    assert shown(b"x" * 10_000_000).startswith("b'xxx")
    assert shown(1 << 3_000_000) == "<int of 3000001 bits>"
    assert shown(list(range(1_000_000))) == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...]"
    assert shown(circle) == "[[[[...]]]]"
    assert len(shown(list("abc") * 100, 20)) == 20


def test_a_metaclass_cannot_lie_about_the_name() -> None:
    """The name is read where the class keeps it."""

    class Liar(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise RuntimeError

    class Real(metaclass=Liar):
        pass

    assert kind_of(Real()) == "Real"


@given(st.recursive(st.text() | st.binary() | st.integers(), st.lists), st.integers(1))
def test_whatever_is_shown_fits_and_prints(value: object, most: int) -> None:
    """No value and no limit gives more, or something that does not print."""
    text = shown(value, most)

    assert len(text) <= most
    assert text.isprintable()
