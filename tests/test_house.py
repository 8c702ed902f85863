"""The rules of the house that no linter knows."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
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
    "amplitude_async.integrations",
    "amplitude_async.mparticle",
    "amplitude_async.sync",
    "amplitude_async.testing",
    "anyio",
    "arq",
    "asgiref",
    "celery",
    "django",
    "fastapi",
    "faststream",
    "gevent",
    "isal",
    "litestar",
    "opentelemetry",
    "prometheus_client",
    "pydantic_settings",
    "pytest",
    "quart",
    "redis",
    "rich",
    "starlette",
    "structlog",
    "taskiq",
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
    "Schedule": TO_BE_CUT,
    "Waiting": TO_BE_CUT,
}
MOST_ATTRIBUTES = 12
FULL_CLASSES = {
    "PlainDestination": "its queue and its task are still told apart by attributes",
    "Room": "places that are taken, promised, kept for reading, and who waits",
}
MOST_WRITES = 3.0
WRITING_FOLDERS: dict[str, str] = {}
LONGEST_FILE = 450
ROOMS_OF_SHORT_FILES = ("client", "delivery")
LONG_FILES = {
    "delivery/deciding/waiting.py": TO_BE_CUT,
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

    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if path.parent.name != "integrations" or str(error.name).startswith("amp"):
            raise
        pytest.skip(f"needs {error.name}, which is found installed or not")

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


def outside_of_reprs(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk through a module, but not into what shows our own objects."""
    for node in ast.iter_child_nodes(tree):
        is_repr = isinstance(node, ast.FunctionDef) and node.name == "__repr__"
        if not is_repr:
            yield node
            yield from outside_of_reprs(node)


@each_module
def test_values_of_others_are_shown_by_one_function(path: Path) -> None:
    """A value may be huge, forge a line or raise in its repr: none meets ``!r``."""
    room = path.relative_to(PACKAGE).parts[0]
    if room in {"cli", "emulator", "storage", "testing"}:
        pytest.skip("shows nothing that a caller of a verb has given")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    shown = {
        ast.unparse(node.value)
        for node in outside_of_reprs(tree)
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
    }

    # A hint is a name of ours.
    assert shown <= {"hint"}


JSON_MARKS = re.compile(r'[{,]"|"[}\]:]|":|"\[|\[\{|\}\]')
# What is joined by hand holds nothing but what an encoder wrote, or our own numbers and
# ids, and here is why that is so.
JOINED_BY_HAND = {
    "amplitude/encoder.py": "members of encoded values, a number, and our own id",
    "amplitude/door.py": "members: a number, and our own id",
    "amplitude/endpoint.py": "the frame: the key by json.dumps, a number, a time",
    "mparticle/encoder.py": "members: a number, our own id, and an encoded key",
    "mparticle/models/batch.py": "an encoded head and encoded events",
    "mparticle/models/envelope.py": "an encoded type and encoded data",
}


# Ids that we have made and names of fields need no escapes.
NEEDS_NO_ESCAPE = {',"insert_id":"%b"%b', ',"%b":%b'}


def texts_with_gaps(tree: ast.AST) -> Iterator[str]:
    """Give the literal parts of all text that something is put into, or joined to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts: list[ast.expr] = list(node.values)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            parts = [node.left, node.right]
        else:
            continue
        literals = [part.value for part in parts if isinstance(part, ast.Constant)]
        for literal in literals:
            if isinstance(literal, bytes):
                yield literal.decode("utf-8", "replace")
            elif isinstance(literal, str):
                yield literal


def joined_by_hand() -> dict[str, list[str]]:
    """Find the pieces of JSON that what sends is joined from, by module."""
    found = {}
    for path in MODULES:
        name = path.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] in {"cli", "emulator", "testing"}:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [text for text in texts_with_gaps(tree) if JSON_MARKS.search(text)]
        if texts:
            found[name] = texts
    return found


def test_json_joined_by_hand_is_an_encoders() -> None:
    """Only encoders put JSON together from pieces; a value in it could break out."""
    assert set(joined_by_hand()) == set(JOINED_BY_HAND)


def test_nothing_is_put_between_quotes_by_hand() -> None:
    """Text is quoted by the encoder, which knows the escapes; ids of ours need none."""
    texts = {text for texts in joined_by_hand().values() for text in texts}

    assert {text for text in texts if '"%' in text} == NEEDS_NO_ESCAPE


def test_joined_json_is_found() -> None:
    """The rule sees what it is there for."""
    for code in (
        """f'{{"key":"{value}"}}'""",
        """b'{"key":"' + value + b'"}'""",
        """b',"key":%b' % value""",
        """b'"key":"%b"' % value""",
    ):
        texts = texts_with_gaps(ast.parse(code))
        assert any(map(JSON_MARKS.search, texts)), code


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
