"""Print the size and shape of the code beside four libraries we look up to.

Read it at each release and argue with it. `tests/test_house.py` holds us to the three
figures that tell whether each question has one owner:

- **Classes over 300 lines**, from `class` to the last line, docstring included.
- **Most attributes**: the distinct names that the methods of one class store in as
  `self.name`. Fields that a class body only declares, as those of a pydantic model or
  a dataclass, do not count: they are what the class is, not what it keeps track of.
- **Writes into other objects per 1,000 lines**: every place that assigns or deletes
  an attribute of anything but a bare `self` or `cls`. `self.queue.size += 1` is one,
  `self.size += 1` and `queue.put(1)` are none.
"""

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = ["ClassShape", "Shape", "main", "measure", "measure_files"]

Function = ast.FunctionDef | ast.AsyncFunctionDef

LONG = 35
LONG_CLASS = 300
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
    f"classes >{LONG_CLASS}",
    "most attributes",
    "writes into others per 1000",
)
# What pip has installed of them is what they are compared by.
MODELS = ("httpcore", "stamina", "anyio", "h11")
# Made by a program from the asynchronous half.
GENERATED = {"httpcore": "_sync"}
OURSELVES = frozenset({"self", "cls"})
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
class ClassShape:
    """What was counted in one class."""

    name: str
    lines: int
    attributes: int


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
    classes: tuple[ClassShape, ...] = ()
    writes: int = 0

    def __add__(self, other: "Shape") -> "Shape":
        return Shape(
            self.modules + other.modules,
            self.functions + other.functions,
            self.branching + other.branching,
            self.typed + other.typed,
            self.documented + other.documented,
            self.comments + other.comments,
            self.blanket_excepts + other.blanket_excepts,
            self.classes + other.classes,
            self.writes + other.writes,
        )

    @property
    def writes_per_1000(self) -> float:
        """Writes into other objects per 1,000 lines."""
        return 1000 * self.writes / max(sum(self.modules), 1)

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
            f"{sum(found.lines > LONG_CLASS for found in self.classes)}",
            self._fullest(),
            f"{self.writes_per_1000:.1f}",
        )

    def _fullest(self) -> str:
        most = max(self.classes, key=lambda found: found.attributes, default=None)
        return f"{most.attributes} {most.name}" if most and most.attributes else "0"


def measure_files(folder: Path, *, without: str | None = None) -> Shape:
    """Count all modules of a folder, but for those of a subfolder of that name."""
    files = (path for path in sorted(folder.rglob("*.py")) if without not in path.parts)
    shapes = (measure(path.read_text(encoding="utf-8")) for path in files)
    return sum(shapes, Shape())


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
        classes=tuple(
            shape_of(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
        ),
        writes=sum(
            owner(attribute) not in OURSELVES for attribute in stored_attributes(tree)
        ),
    )


def shape_of(node: ast.ClassDef) -> ClassShape:
    """Count one class."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    own = {a.attr for a in stored_attributes(node) if owner(a) == "self"}
    return ClassShape(node.name, lines, len(own))


def stored_attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Yield every attribute that is assigned or deleted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node


def owner(attribute: ast.Attribute) -> str | None:
    """Return the name whose attribute it is, None where that is no plain name."""
    return attribute.value.id if isinstance(attribute.value, ast.Name) else None


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


def folders(package: Path) -> Iterator[Path]:
    """Yield the folders of a package that hold code, itself left out."""
    for folder in sorted(package.iterdir()):
        if any(folder.glob("*.py")):
            yield folder


def models() -> Iterator[tuple[str, ...]]:
    """Yield a row of each library that is installed."""
    for name in MODELS:
        found = find_spec(name)
        if found is None or found.origin is None:
            print(f"{name} is not installed and left out; `nox -s measure` brings it.")
            continue
        folder = Path(found.origin).parent
        yield measure_files(folder, without=GENERATED.get(name)).row(name)


def main() -> None:
    """Measure the folder given, or the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    package = Path(__file__).parents[1] / "amplitude_async"
    parser.add_argument("folder", nargs="?", type=Path, default=package)
    package = parser.parse_args().folder.resolve()
    ours = [(package.name, package)]
    ours += [(f"{folder.name}/", folder) for folder in folders(package)]
    rows = [measure_files(folder).row(name) for name, folder in ours]
    print(table([*rows, *models()]))


if __name__ == "__main__":
    main()
