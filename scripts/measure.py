"""Print the size and shape of the code beside two libraries we look up to.

Read it at each release and argue with it; no check depends on it.
"""

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Shape", "main", "measure"]

Function = ast.FunctionDef | ast.AsyncFunctionDef

LONG = 35
HEAD = (
    "codebase",
    "modules / lines",
    "module med / p95 / max",
    "function med / p95 / max",
    f">{LONG} lines",
    "branching p95 / max",
    "doc %",
    "comments per 100",
    "typed %",
    "except Exception per 1000",
)
# What this script says of httpcore 1.0.9, without its generated synchronous twin, and
# of stamina 26.1.0.
MODELS = (
    (
        "httpcore",
        "23 / 4642",
        "143 / 516 / 592",
        "6 / 35 / 103",
        "4.5%",
        "6 / 14",
        "11",
        "7.1",
        "97",
        "3.2",
    ),
    (
        "stamina",
        "10 / 1512",
        "41 / 913 / 913",
        "7 / 35 / 92",
        "4.1%",
        "8 / 14",
        "69",
        "4.6",
        "93",
        "0.7",
    ),
)
BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.BoolOp,
    ast.comprehension,
    ast.match_case,
)


@dataclass(frozen=True)
class Shape:
    """What was counted in one file or in many."""

    modules: tuple[int, ...] = ()
    functions: tuple[int, ...] = ()
    branching: tuple[int, ...] = ()
    typed: tuple[bool, ...] = ()
    documented: tuple[bool, ...] = ()
    comments: int = 0
    blanket_excepts: int = 0

    def __add__(self, other: "Shape") -> "Shape":
        return Shape(
            self.modules + other.modules,
            self.functions + other.functions,
            self.branching + other.branching,
            self.typed + other.typed,
            self.documented + other.documented,
            self.comments + other.comments,
            self.blanket_excepts + other.blanket_excepts,
        )

    def row(self, name: str) -> tuple[str, ...]:
        """Return the cells of this codebase's row."""
        lines = sum(self.modules)
        long = [length > LONG for length in self.functions]
        return (
            name,
            f"{len(self.modules)} / {lines}",
            spread(self.modules),
            spread(self.functions),
            f"{share(long):.1f}%",
            f"{percentile(self.branching)} / {max(self.branching, default=0)}",
            f"{share(self.documented):.0f}",
            f"{100 * self.comments / max(lines, 1):.1f}",
            f"{share(self.typed):.0f}",
            f"{1000 * self.blanket_excepts / max(lines, 1):.1f}",
        )


def measure(source: str) -> Shape:
    """Count one module."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    return Shape(
        modules=(len(source.splitlines()),),
        functions=tuple(length(function) for function in functions),
        branching=tuple(branches(function) for function in functions),
        typed=tuple(is_typed(function) for function in functions),
        documented=tuple(
            ast.get_docstring(node) is not None for node in public_things(tree)
        ),
        comments=count_comments(source),
        blanket_excepts=sum(
            isinstance(node, ast.ExceptHandler) and is_blanket(node)
            for node in ast.walk(tree)
        ),
    )


def length(function: Function) -> int:
    """Return the lines of a function without its docstring and decorators."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def branches(function: Function) -> int:
    """Return how many decisions a function makes, nested functions included."""
    return sum(isinstance(node, BRANCHES) for node in ast.walk(function))


def is_typed(function: Function) -> bool:
    """Tell whether every parameter and the result have an annotation."""
    given = function.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    parameters += [extra for extra in (given.vararg, given.kwarg) if extra]
    return function.returns is not None and all(
        parameter.annotation is not None
        for parameter in parameters
        if parameter.arg not in {"self", "cls"}
    )


def public_things(
    tree: ast.Module | ast.ClassDef,
) -> Iterator[ast.Module | ast.ClassDef | Function]:
    """Yield what should have a docstring: the node, and public names inside it."""
    yield tree
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_things(node)


def count_comments(source: str) -> int:
    """Return how many comments a module has."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)


def is_blanket(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler catches everything."""
    kind = handler.type
    return kind is None or (
        isinstance(kind, ast.Name) and kind.id in {"BaseException", "Exception"}
    )


def percentile(values: Sequence[int], part: float = 0.95) -> int:
    """Return the smallest value that `part` of the values do not exceed."""
    if not values:
        return 0
    ordered = sorted(values)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]


def spread(values: Sequence[int]) -> str:
    """Return median, 95th percentile and maximum as one cell."""
    if not values:
        return "0 / 0 / 0"
    return f"{statistics.median_low(values)} / {percentile(values)} / {max(values)}"


def share(flags: Sequence[bool]) -> float:
    """Return the share of true values in per cent."""
    return 100 * sum(flags) / max(len(flags), 1)


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Return the rows as a Markdown table."""
    divider = ("---",) * len(HEAD)
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEAD, divider, *rows))


def main() -> None:
    """Measure the folder given, or the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    package = Path(__file__).parents[1] / "amplitude_async"
    parser.add_argument("folder", nargs="?", type=Path, default=package)
    folder = parser.parse_args().folder.resolve()
    files = sorted(folder.rglob("*.py"))
    shapes = (measure(path.read_text(encoding="utf-8")) for path in files)
    print(table([sum(shapes, Shape()).row(folder.name), *MODELS]))


if __name__ == "__main__":
    main()
