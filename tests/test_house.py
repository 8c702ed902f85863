"""The rules of the house that no linter knows."""

import ast
import importlib
import os
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

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

# A rule holds everywhere but here, and each exception says why. What keeps the rule
# has no place in these tables: the test fails until it is taken out.
LONGEST_CLASS = 300
# What stands between the storage and memory was made to work before it was cut.
TO_BE_CUT = "grew with what a spool in trouble asks for; the next to be cut"
LONG_CLASSES = {
    "Intake": TO_BE_CUT,
    "Journal": TO_BE_CUT,
    "Schedule": TO_BE_CUT,
    "Waiting": TO_BE_CUT,
}
MOST_ATTRIBUTES = 12
FULL_CLASSES = {
    "Intake": TO_BE_CUT,
    "PlainDestination": "its queue and its task are still told apart by attributes",
    "Room": "places that are taken, promised, kept for reading, and who waits",
}
MOST_WRITES = 3.0
WRITING_FOLDERS: dict[str, str] = {}
LONGEST_FILE = 450
ROOMS_OF_SHORT_FILES = ("client", "delivery")
LONG_FILES = {
    "delivery/deciding/waiting.py": TO_BE_CUT,
    "delivery/intake.py": TO_BE_CUT,
    "delivery/journal.py": TO_BE_CUT,
}

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


def load_script() -> ModuleType:
    """Load the script that counts, so that it and we mean the same by a figure."""
    path = Path(__file__).parents[1] / "scripts" / "measure.py"
    spec = spec_from_file_location("measure", path)
    assert spec is not None
    assert spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def shapes() -> dict[Path, Any]:
    """Return what is counted in each module."""
    measure = load_script().measure
    return {path: measure(path.read_text(encoding="utf-8")) for path in MODULES}


def test_no_class_is_long(shapes: dict[Path, Any]) -> None:
    """A class fits into one reading."""
    classes = [found for shape in shapes.values() for found in shape.classes]
    long = {found.name for found in classes if found.lines > LONGEST_CLASS}

    assert long == set(LONG_CLASSES)


def test_no_class_keeps_track_of_much(shapes: dict[Path, Any]) -> None:
    """A class answers one question, and needs few attributes for it."""
    classes = [found for shape in shapes.values() for found in shape.classes]
    full = {found.name for found in classes if found.attributes > MOST_ATTRIBUTES}

    assert full == set(FULL_CLASSES)


def test_objects_own_their_data(shapes: dict[Path, Any]) -> None:
    """Others call an object's verbs; its attributes they do not write."""
    writing = set()
    for folder in {path.parent for path in MODULES}:
        inside = [shapes[path] for path in MODULES if path.is_relative_to(folder)]
        lines = sum(length for shape in inside for length in shape.modules)
        if 1000 * sum(shape.writes for shape in inside) >= MOST_WRITES * lines:
            writing.add(folder.relative_to(PACKAGE).as_posix())

    assert writing == set(WRITING_FOLDERS)


def test_no_file_of_the_inner_rooms_is_long() -> None:
    """A file of the engine or the client is about one thing."""
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] in ROOMS_OF_SHORT_FILES
        and len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE
    }

    assert long == set(LONG_FILES)


@pytest.mark.skipif(
    "AMPLITUDE_ASYNC_EXPECT_WHEEL" not in os.environ,
    reason="only nox tests the wheel",
)
def test_the_wheel_is_what_is_tested() -> None:
    """The suite runs what users install, not the source tree beside it."""
    assert "site-packages" in PACKAGE.parts
