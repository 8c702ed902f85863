"""Two SDKs, one recorder: what each put on the wire, and every difference by its class.

The files beside this one are collected where both official SDKs are installed, as in
`nox -s differential`, and nowhere else.
"""

import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

__all__ = [
    "ABSENT",
    "Difference",
    "Json",
    "Leaf",
    "Recorder",
    "compare",
    "events_wanted",
    "recorder",
    "seed",
    "sort_out",
    "table_of",
]

Json = dict[str, Any]
Path_ = tuple[str | int, ...]

PAGE: Final = Path(__file__).parents[2] / "docs" / "differences.md"
SHOWN: Final = 20
LONGEST: Final = 160
MANY_EVENTS: Final = 5_000


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


collect_ignore_glob = (
    [] if _installed("amplitude-analytics") and _installed("mparticle") else ["test_*"]
)


@pytest.fixture(scope="session")
def seed() -> int:
    """Return the seed of all field sets; `nox -s differential -- --seed` sets it."""
    return int(os.environ.get("AMPLITUDE_ASYNC_SEED", "13"))


@pytest.fixture(scope="session")
def events_wanted() -> int:
    """Return how many events each SDK gets at least."""
    return int(os.environ.get("AMPLITUDE_ASYNC_EXAMPLES", str(MANY_EVENTS)))


# --- What arrived ---


class Recorder:
    """A server that takes everything and keeps the JSON of it."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, Any]] = []

    async def receive(self, request: web.Request) -> web.Response:
        """Keep one request, and answer as either vendor would."""
        body = json.loads(await request.read(), parse_constant=_refuse)
        self.requests.append((request.path, body))
        return web.json_response({"code": 200}, status=200)

    def take(self) -> list[tuple[str, Any]]:
        """Give path and JSON of what arrived since the last call."""
        taken, self.requests = self.requests, []
        return taken


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    """Yield a running recorder."""
    made = Recorder()
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/{path:.*}", made.receive)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


# --- What differs ---


class Absent:
    """Says that a key, or a whole event, is not there."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Final = Absent()


class Leaf(NamedTuple):
    """One place where the JSON of the two differs."""

    case: Any
    """What both were asked to send."""

    path: Path_
    """Where; empty for the whole of it."""

    theirs: Any
    """What the official SDK sent there."""

    ours: Any
    """What we sent there."""


class Difference(NamedTuple):
    """A class of differences: why they are there, and which they are."""

    reason: str
    """One line, the same as on the page of differences."""

    covers: Callable[[Leaf], bool]
    """Tells whether a leaf is of this class."""


def compare(case: Any, theirs: Any, ours: Any, path: Path_ = ()) -> Iterator[Leaf]:
    """Give each smallest part that is not the same, type of number included."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in {**theirs, **ours}:
            pair = theirs.get(key, ABSENT), ours.get(key, ABSENT)
            yield from compare(case, *pair, (*path, key))
    elif _are_lists(theirs, ours):
        for index, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from compare(case, *pair, (*path, index))
    elif type(theirs) is not type(ours) or theirs != ours:
        yield Leaf(case, path, theirs, ours)


def _are_lists(theirs: Any, ours: Any) -> bool:
    both = isinstance(theirs, list) and isinstance(ours, list)
    return both and len(theirs) == len(ours)


def sort_out(
    leaves: Sequence[Leaf],
    classes: Mapping[str, Difference],
    *,
    seed: int,
    events: int,
) -> Counter[str]:
    """Count the leaves of each class; fail with those that are of none."""
    found: Counter[str] = Counter()
    unexplained: list[Leaf] = []
    for leaf in leaves:
        name = next((n for n, one in classes.items() if one.covers(leaf)), None)
        if name is None:
            unexplained.append(leaf)
        else:
            found[name] += 1
    if unexplained:
        pytest.fail(_report(unexplained, seed), pytrace=False)
    idle = classes.keys() - found.keys()
    # A short run need not meet every class.
    assert events < MANY_EVENTS or not idle, (
        f"no difference is of these classes any more: {sorted(idle)}"
    )
    return found


def _report(leaves: Sequence[Leaf], seed: int) -> str:
    # One of each place: the first says as much as the thousand after it.
    firsts = {(leaf.case.kind, *map(_place, leaf.path)): leaf for leaf in leaves[::-1]}
    shown = [
        f"{leaf.case.kind} {leaf.case.number}: "
        f"{'.'.join(map(str, leaf.path)) or 'the whole of it'}"
        f"\n  asked for {_short(_asked(leaf))}"
        f"\n  theirs is {_short(leaf.theirs)}"
        f"\n  ours is   {_short(leaf.ours)}"
        for leaf in list(firsts.values())[:SHOWN]
    ]
    head = f"{len(leaves)} differences of no class, with seed {seed}:"
    return "\n".join([head, *shown])


def _asked(leaf: Leaf) -> Any:
    """Give the part of what was asked for that the path leads to, as far as it does."""
    part = leaf.case.asked
    for step in leaf.path:
        try:
            part = part[step]
        except (LookupError, TypeError):
            break
    return part


def _place(step: str | int) -> str:
    return "*" if isinstance(step, int) else step.rstrip("0123456789")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text)})"


def table_of(heading: str) -> dict[str, str]:
    """Read class and reason from the table under a heading of the page."""
    section = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return dict(line.strip("| ").split(" | ") for line in lines[1:])
