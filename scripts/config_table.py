"""Print the table of options in docs/configuration.md, read from the model itself."""

import argparse
import ast
import enum
import inspect
import itertools
import logging
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from amplitude_async import Config

__all__ = ["main", "option_meanings", "page_with", "table"]

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BEGIN = "<!-- options: written by scripts/config_table.py --write -->\n"
END = "<!-- end of options -->\n"
HEAD = "| option | type | default | environment | meaning |\n|---|---|---|---|---|\n"
PREFIX = "AMPLITUDE_"

# A variable holds text, and no text makes one of these.
NOT_IN_ENVIRONMENT = {"callback", "handover", "logger", "storage"}

# What the signature cannot say: an open type, and defaults that are made.
TYPES = {"handover": "Log", "storage": "Storage or function"}
DEFAULTS = {
    "headers": "none",
    "logger": '`"amplitude_async"`',
    "storage": "memory",
}
NAMES: dict[Any, str] = {
    SecretStr: "text",
    bool: "bool",
    dict: "mapping",
    float: "number",
    int: "whole number",
    logging.Logger: "Logger",
    str: "text",
}


def table() -> str:
    """Return the whole table as Markdown: the vendor's own options come first."""
    fields = Config.model_fields
    own = [name for name in fields if name in Config.__annotations__]
    rest = [name for name in fields if name not in own]
    meanings = option_meanings(Config)
    return HEAD + "".join(
        _row(name, fields[name], meanings.get(name, "")) for name in [*own, *rest]
    )


def option_meanings(model: type[BaseModel]) -> dict[str, str]:
    """Read the docstrings under the fields of a model and of those it inherits from.

    The package does not let pydantic collect them: it would read the source at each
    import.
    """
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (
            issubclass(base, BaseModel)
            and base.__module__.startswith("amplitude_async")
        ):
            continue
        source = inspect.getsource(base)
        [tree] = ast.parse(textwrap.dedent(source)).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                meanings[field.target.id] = inspect.cleandoc(text.value.value)
    return meanings


def page_with(text: str, options: str) -> str:
    """Return the text of the page with the options between its two marks.

    Raises:
        ValueError: the page has lost a mark.
    """
    above, begin, rest = text.partition(BEGIN)
    _, end, below = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks a mark: put back {BEGIN!r} and {END!r}")
    return f"{above}{begin}\n{options}\n{end}{below}"


def _row(name: str, info: FieldInfo, meaning: str) -> str:
    cells = (
        f"`{name}`",
        TYPES.get(name) or _type(info.annotation, info.metadata),
        DEFAULTS.get(name) or _default(info.default),
        "" if name in NOT_IN_ENVIRONMENT else f"`{PREFIX}{name.upper()}`",
        " ".join(meaning.replace("``", "`").split()),
    )
    return "| " + " | ".join(cells) + " |\n"


def _type(annotation: Any, metadata: Sequence[object] = ()) -> str:
    """Say in words what an option takes; None is told by the meaning."""
    if any(isinstance(item, BeforeValidator) for item in metadata):
        return "seconds"
    return " or ".join(_alternatives(annotation))


def _alternatives(annotation: Any) -> Iterator[str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType}:
        for part in args:
            if part is not type(None):
                yield from _alternatives(part)
    elif origin is Annotated:
        yield _type(args[0], args[1:])
    elif origin is Literal:
        yield from (f"`{choice}`" for choice in args)
    elif origin is Callable or annotation is Callable:
        yield "function"
    elif inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        yield from (f"`{member.value}`" for member in annotation)
    else:
        kind = origin or annotation
        yield NAMES.get(kind) or kind.__name__


def _default(value: object) -> str:
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, enum.Enum):
        return f"`{value.value}`"
    if isinstance(value, bool):
        return f"`{value}`"
    if isinstance(value, int | float):
        return f"`{value:_}`"
    return f"`{value}`"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into the page")
    if parser.parse_args(arguments).write:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(page_with(text, table()), encoding="utf-8")
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
