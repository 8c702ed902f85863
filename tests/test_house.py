"""The rules of the house that no linter knows."""

import ast
import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import amplitude_async

__all__: list[str] = []

PACKAGE = Path(amplitude_async.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES_THAT_SAY_NOTHING = {"common", "helper", "helpers", "manager", "util", "utils"}
LOADED_ON_DEMAND = [
    "aiosqlite",
    "isal",
    "pydantic_settings",
    "pytest",
    "rich",
    "starlette",
    "typer",
    "uvloop",
]

each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES]
)


def dotted(path: Path) -> str:
    """Return the import name of a module of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@each_module
def test_a_module_says_what_it_is_and_what_it_offers(path: Path) -> None:
    """Every module opens with a docstring and lists its public names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = {
        target.id
        for node in tree.body
        for target in (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        if isinstance(target, ast.Name)
    }

    assert ast.get_docstring(tree)
    assert "__all__" in assigned


@each_module
def test_a_module_offers_only_names_it_has(path: Path) -> None:
    """A name in `__all__` exists, and stands there once."""
    name = dotted(path)
    if name.startswith("amplitude_async.cli") and find_spec("typer") is None:
        pytest.skip("needs the extra cli")
    if path.name == "__main__.py":
        pytest.skip("runs when imported")

    module = importlib.import_module(name)

    assert len(module.__all__) == len(set(module.__all__))
    assert [offered for offered in module.__all__ if not hasattr(module, offered)] == []


@each_module
def test_a_file_name_says_what_lives_there(path: Path) -> None:
    """No file or folder has a name that could hold anything."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts

    assert NAMES_THAT_SAY_NOTHING.isdisjoint(parts)


def test_importing_the_package_loads_nothing_optional() -> None:
    """A service pays at import only for what every client uses."""
    program = (
        "import sys, amplitude_async\n"
        f"print(*[name for name in {LOADED_ON_DEMAND} if name in sys.modules])"
    )
    search_path = os.pathsep.join([str(PACKAGE.parent), *sys.path])

    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": search_path},
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )

    assert finished.stderr == ""
    assert finished.stdout.split() == []


def test_the_package_is_marked_as_typed() -> None:
    """Type checkers of our users read our annotations."""
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.skipif(
    "AMPLITUDE_ASYNC_EXPECT_WHEEL" not in os.environ,
    reason="only nox tests the wheel",
)
def test_the_wheel_is_what_is_tested() -> None:
    """The suite runs what users install, not the source tree beside it."""
    assert "site-packages" in PACKAGE.parts
