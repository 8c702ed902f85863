"""What the pages say of numbers, names, messages and files is what the code says."""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from functools import cache, reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import amplitude_async
import amplitude_async.emulator
import amplitude_async.mparticle
import amplitude_async.storage
import amplitude_async.testing
from amplitude_async import (
    Amplitude,
    ConfigurationError,
    DeliveryStatus,
    DropReason,
    Identify,
)
from amplitude_async.mparticle import CustomEvent, MParticleError, UserIdentities
from amplitude_async.mparticle.endpoint import (
    MAX_BATCH_BYTES,
    MAX_BATCHES,
    MAX_REQUEST_BYTES,
)
from amplitude_async.storage import SQLiteStorage

__all__: list[str] = []

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "amplitude_async"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]

FILE = re.compile(r"[`(]((?:tests|benchmarks|examples|scripts)/[\w/.-]+\.\w+)[`):]")
TEST = re.compile(r"`(?:[\w/.]+::)?(test_\w+)`")
SESSION = re.compile(r"nox -s (\w+)")
CELL = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
MESSAGES_OF_OTHERS = {
    "await delivery",  # what the reader wrote
    "RuntimeWarning: coroutine ... was never awaited",  # Python's own
    "Input should be a valid dictionary",  # pydantic's
    "HTTP Request Sent",  # what the reader sees at Amplitude
    "Http request sent",
    "Inferred dependency field 'amplitude'",  # Litestar's
    'The server does not support "state" in the lifespan scope',  # Starlette's
    "'State' object has no attribute 'amplitude'",  # Starlette's
    "AmplitudeNothingDelivered",  # a rule of docs/operate/alerts.yml
    "/metrics",  # the reader's own path
}
PUT_TOGETHER = {
    "The command line needs typer": "The command line needs {",
    "cannot listen on 127.0.0.1 port 8080": "cannot listen on {",
    "state failing": "; state %s",
    "job_serializer is set already": "{name} is set already",
    "dropped shutdown": "dropped {outcome.reason}",
    "TypeError: ... properties is a field": " is a field, and the method of that name",
}
"""Messages of which a page shows an instance, and what they are in the code."""
CHANGES: dict[str, Any] = {"unset": (), "add": (1,)}


def page(name: str) -> str:
    """Return the text of a page."""
    return (DOCS / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, as far as the next one of its kind."""
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


# --- Files, tests and sessions ---


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_a_page_points_to_exists(path: Path) -> None:
    """Each file, test and session that a page names is there."""
    text = path.read_text("utf-8")
    sessions = re.findall(
        r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE
    )

    assert [name for name in FILE.findall(text) if not is_file(path, name)] == []
    assert [name for name in TEST.findall(text) if name not in names_of_tests()] == []
    assert [name for name in SESSION.findall(text) if name not in sessions] == []


def is_file(path: Path, name: str) -> bool:
    """Tell whether a file is in the project or, for a link, beside the page."""
    return (ROOT / name).exists() or (path.parent / name).exists()


@cache
def names_of_tests() -> frozenset[str]:
    """Return the name of every test."""
    files = (ROOT / "tests").rglob("test_*.py")
    found = (re.findall(r"def (test_\w+)\(", one.read_text("utf-8")) for one in files)
    return frozenset(name for names in found for name in names)


@pytest.mark.parametrize(
    ("path", "heading"),
    [(ROOT / "README.md", "Install"), (DOCS / "index.md", "Extras")],
)
def test_the_extras_are_those_of_the_package(path: Path, heading: str) -> None:
    """Both tables list each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = CELL.findall(section(path.read_text("utf-8"), heading))

    assert listed == list(project["optional-dependencies"])


def test_the_service_of_the_readme_says_what_it_needs() -> None:
    """FastAPI and its server are no dependencies of ours, so the page names them."""
    for path in (ROOT / "README.md", ROOT / "examples" / "fastapi_service.py"):
        assert "pip install fastapi uvicorn" in path.read_text("utf-8")


# --- Names ---


def test_the_reference_has_every_public_name() -> None:
    """Whatever can be imported from a public module stands on one of its pages."""
    names = [
        name
        for path in (DOCS / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", path.read_text("utf-8"), re.MULTILINE)
    ]
    listed = [resolve(name) for name in names]

    assert len(names) == len(set(names))
    missing = [
        f"{module}.{name}"
        for module in public_modules() - set(names)
        for name in import_module(module).__all__
        if name != "__version__"
        and not any(getattr(import_module(module), name) is one for one in listed)
    ]
    assert sorted(missing) == []


def public_modules() -> set[str]:
    """Return the modules from which pages, examples and the design tell to import."""
    told = re.compile(r"(?:from|import) (amplitude_async[\w.]*)")
    found = {
        name
        for path in (*PAGES, *(ROOT / "examples").rglob("*.py"))
        for name in told.findall(path.read_text("utf-8"))
    }
    assert {"amplitude_async.emulator", "amplitude_async.testing"} < found
    return found


def resolve(path: str) -> Any:
    """Return the object at a dotted path."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[length:], module)
    raise AssertionError(path)


def test_statuses_and_reasons_are_all_told() -> None:
    """The page of results has a row for each end that an event can come to."""
    rows = CELL.findall(page("results.md"))

    assert [row for row in rows if row.isupper()] == [
        one.name for one in DeliveryStatus
    ]
    assert {one.value for one in DropReason} <= set(rows)


def test_the_causes_in_the_log_are_all_told() -> None:
    """Each cause that a line can name is in a table for whoever reads the log."""
    told = {
        cause.split()[0]
        for name in ("delivery.md", "spool.md", "operate/fleet-runbook.md")
        for row in re.findall(r"^\| (`.+?`) \|", page(name), re.MULTILINE)
        for cause in re.findall(r"`([^`]+)`", row)
    }
    found = {cause for path in PACKAGE.rglob("*.py") for cause in causes(path)}

    assert len(found) > 20
    # Of one that is put together in its first word, each instance has a row.
    untold = {
        cause
        for cause in found - told
        if not (cause.endswith("_") and any(one.startswith(cause) for one in told))
    }
    assert sorted(untold) == []


def causes(path: Path) -> Iterator[str]:
    """Give the first word of each cause that a file reports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value)
        if node.func.attr in {"warning", "error"} and owner.endswith("reporter"):
            cause = node.args[0]
            if isinstance(cause, ast.JoinedStr):
                cause = cause.values[0]
            if isinstance(cause, ast.Constant):
                yield str(cause.value).split()[0]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_message_that_is_quoted_is_a_message(path: Path) -> None:
    """What a page shows as a message can be found in the code, or is raised below."""
    text = path.read_text("utf-8")
    headings = re.findall(
        r"^\*\*(.+?)\*\*", text.partition("## Troubleshooting")[2], re.MULTILINE
    )
    quoted = {quote for one in headings for quote in re.findall(r"`([^`]+)`", one)}
    unknown = [
        quote
        for quote in {PUT_TOGETHER.get(q, q) for q in quoted - MESSAGES_OF_OTHERS}
        if not all(
            part.strip() in known_messages()
            for part in re.split(r"\.\.\.|: |, line \d+|=.*$", quote)
        )
    ]
    assert unknown == []


@cache
def known_messages() -> str:
    """Return the source with its texts put together, and what it raises."""
    source = "".join(file.read_text("utf-8") for file in PACKAGE.rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", source) + "\n".join(raised())


def raised() -> Iterator[str]:
    """Give messages that are put together only when they are raised."""
    wrong: list[Any] = [
        lambda: Amplitude("key", flush_interval_millis=5),  # type: ignore[call-arg]
        lambda: UserIdentities(customer_ID="c-1"),  # type: ignore[call-arg]
        lambda: CustomEvent(event_name="e", timestamp_unixtime_ms=1_700_000_000),
    ]
    for make in wrong:
        with pytest.raises((ConfigurationError, ValueError)) as caught:
            make()
        yield str(caught.value)


# --- Numbers ---


def test_the_defaults_of_the_spool_are_those_of_the_page() -> None:
    """The table of sizes says what the constructor does."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(SQLiteStorage).parameters.items()
    }
    rows = dict(
        re.findall(
            r"^\| `(\w+)` \| ([^|]+?) \|",
            section(page("spool.md"), "Size"),
            re.MULTILINE,
        )
    )
    assert rows["max_events"] == f"{defaults['max_events']:,}"
    assert (
        rows["max_bytes"] == f"{defaults['max_bytes'] // 2**30} GiB of encoded events"
    )
    days = timedelta(seconds=defaults["max_age"]).days
    assert rows["max_age"] == f"{days} days"
    assert rows["dead_letters"] == str(defaults["dead_letters"])
    assert rows["min_free_bytes"].startswith(
        f"{defaults['min_free_bytes'] // 2**20} MiB left free"
    )


def test_the_operations_are_those_of_the_page() -> None:
    """Each operation is in the table, and the server's order is the code's."""
    text = page("identify.md")
    table = section(text, "The operations").split("\n\nThe list operations")[0]
    methods = set(re.findall(r"`(\w+)", table))
    order = re.search(r"order of its own\*\*: ([\w, \n]+)\.", text)
    assert order is not None
    names = re.sub(r"\s+", " ", order[1])
    built = Identify()
    for name in reversed(names.split(", ")):
        getattr(built, name)(name, *CHANGES.get(name, ("value",)))

    assert {*names.split(", "), "clear_all"} == methods
    assert [next(iter(values)) for values in built.properties.values()] == names.split(
        ", "
    )


def test_the_limits_of_mparticle_are_those_of_the_page() -> None:
    """Counts, sizes and errors are the code's."""
    text = page("mparticle.md")

    assert f"at most {MAX_BATCHES} batches and {MAX_REQUEST_BYTES:,} bytes" in text
    assert f"more than\n{MAX_BATCH_BYTES:,} bytes is split" in text
    assert f"All {len(UserIdentities.model_fields)} kinds are fields" in text
    errors = re.findall(r"^\| `(\w+Error)`", section(text, "Upload"), re.MULTILINE)
    assert errors
    for name in errors:
        assert issubclass(getattr(amplitude_async.mparticle, name), MParticleError)


@pytest.mark.cli
def test_the_purchase_log_is_what_the_pages_say() -> None:
    """Purchases, customers, units and money, to the cent."""
    purchases = import_module("amplitude_async.cli.demo.purchases")
    log = purchases.sample_log()
    demo = page("demo.md")
    lines = len(log) - len(set(log))

    assert f"{len(log):,} purchases of {len({one.customer for one in log}):,}" in demo
    assert f"{sum(one.units for one in log):,}" in demo
    assert f"{sum((one.amount for one in log), Decimal()):,}" in demo
    assert f"- {lines} lines repeat an earlier one" in demo
    assert sum(not one.amount for one in log) == 8
    assert "Eight amounts are zero" in demo
    for path in (ROOT / "README.md", DOCS / "index.md"):
        assert f"{len(log):,} real" in path.read_text("utf-8").replace("\n", " ")
