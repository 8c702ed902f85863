"""Every example in the README and the docs is run, against a local emulator."""

import ast
import asyncio
import inspect
import re
import runpy
import socket
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from amplitude_async.emulator import Emulator

__all__: list[str] = []

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "amplitude_async"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

BLOCK = re.compile(
    r"^(?P<margin> *)(?:<!-- not run: (?P<reason>[^\n]+) -->\n\n?(?P=margin))?"
    r"```python[^\n]*\n(?P<code>.*?)^(?P=margin)```$",
    re.MULTILINE | re.DOTALL,
)
PAGE_WITH_AN_ERROR = """\
# Example

```python
import asyncio
seen = []
```

<!-- not run: it would fail -->

```python
raise SystemExit
```

=== "In a tab"

    <!-- not run: it would fail, too -->

    ```python title="exit.py"
    raise SystemExit
    ```

    ```python
    await asyncio.sleep(0)
    seen.append(1)
    ```

```python
1 / 0
```
"""
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True)
class Block:
    """One example: its code, and where it stands on its page."""

    code: str
    lines_above: int
    reason_not_run: str | None


def blocks_of(text: str) -> list[Block]:
    """Return the Python blocks of one page, in order."""
    return [
        Block(
            code=dedent(match["code"]),
            lines_above=text.count("\n", 0, match.start("code")),
            reason_not_run=match["reason"],
        )
        for match in BLOCK.finditer(text)
    ]


def run_blocks(blocks: list[Block], page: Path, namespace: dict[str, Any]) -> None:
    """Run the blocks of a page one after another, as a reader would type them."""
    with asyncio.Runner() as runner:
        for block in blocks:
            tree = ast.parse(block.code, filename=str(page))
            # A traceback then points at the line of the page.
            ast.increment_lineno(tree, block.lines_above)
            code = compile(
                tree, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            )
            # A block without await runs outside the loop: it may start its own. One
            # that does is a file, and leaves no names at the reader's prompt.
            names = dict(namespace) if is_program(block.code) else namespace
            outcome = eval(code, names)  # noqa: S307 - our own documentation
            if inspect.iscoroutine(outcome):
                runner.run(outcome)


def is_program(code: str) -> bool:
    """Tell whether an example is a whole file, which starts a loop of its own."""
    return "\nasyncio.run(" in code


@pytest.fixture
def hosts_reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that collects every host outside this machine that is looked up."""
    reached: list[str] = []
    look_up = socket.getaddrinfo

    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name not in LOOPBACK:
            reached.append(name)
            raise socket.gaierror(socket.EAI_NONAME, f"{name}: examples stay here")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)
    return reached


@pytest.mark.allow_blocking
@pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)
def test_every_example_runs(
    page: Path,
    background_emulator: Emulator,
    hosts_reached: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """What a page shows works when typed in, and reaches nothing but this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMPLITUDE_API_KEY", "test-key")
    monkeypatch.setenv("AMPLITUDE_SERVER_URL", background_emulator.httpapi_url)
    monkeypatch.setenv("MPARTICLE_API_KEY", "test-key")
    monkeypatch.setenv("MPARTICLE_API_SECRET", "test-secret")
    monkeypatch.setenv("MPARTICLE_BASE_URL", background_emulator.mparticle_url)
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    namespace = {"__name__": "__main__", "emulator": background_emulator}

    run_blocks([block for block in blocks if not block.reason_not_run], page, namespace)

    assert hosts_reached == []


def test_no_python_block_escapes_the_runner() -> None:
    """Each fence that says python is one that the runner knows how to read."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.findall(r"^\s*```\s*(?:python|py\b|\{\s*\.py)", text, re.MULTILINE)
        assert len(fences) == len(blocks_of(text)), page


def test_a_page_that_awaits_at_the_top_level_says_how_to_run_that() -> None:
    """No reader types an example into a file and meets a SyntaxError unwarned."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        awaiting = [block for block in blocks_of(text) if awaits_outside(block.code)]
        if awaiting:
            above = text.splitlines()[: awaiting[0].lines_above]
            assert "`python -m asyncio`" in "\n".join(above), page


def awaits_outside(code: str) -> bool:
    """Tell whether an example is one for a prompt that takes await."""
    try:
        compile(code, "example", "exec")
    except SyntaxError:
        return True
    return False


def test_every_page_is_in_the_navigation() -> None:
    """No page is written and then never found."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    listed = set(re.findall(r"([\w/.-]+\.md)\s*$", navigation, re.MULTILINE))

    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


@pytest.fixture(scope="module")
def road() -> dict[str, Any]:
    """Return the names of the script that draws the road of an event."""
    return runpy.run_path(str(ROOT / "scripts" / "road.py"))


def test_the_picture_of_the_road_is_the_one_the_script_draws(
    road: dict[str, Any],
) -> None:
    """A picture that is older than its script fails here.

    The remedy: ``python scripts/road.py --write``.
    """
    assert road["PICTURE"].read_text(encoding="utf-8") == road["draw"]()


def test_the_script_of_the_road_prints_the_picture(
    road: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an argument nothing is written."""
    road["main"]([])

    assert capsys.readouterr().out == road["draw"]()


def test_the_road_leads_through_files_that_exist(road: dict[str, Any]) -> None:
    """A room that was moved or renamed is not left in the picture."""
    names = {name for room in road["rooms"]() for name in room.files.split()}
    paths = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    found = {n for n in names for path in paths if f"/{path}".endswith(f"/{n}")}

    assert names - found == {"storage/"}


def test_the_architecture_page_knows_every_room() -> None:
    """No file is moved, renamed or added without a word on the page."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = {Path(name).name for name in re.findall(r"`([\w/]+\.py)`", page)}
    # What lies in these folders is named by the folder.
    folders = {"models", "demo", "testing", "relay"}
    named_by_folder = {
        "cli/emulator.py",
        "cli/spool/commands.py",
        "cli/spool/contents.py",
        "cli/spool/doctor.py",
        "cli/spool/tables.py",
    }
    missing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("[a-z]*.py")
        if path.name not in named and folders.isdisjoint(path.parts)
    }

    assert missing - named_by_folder == set()
    known = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    assert named <= {path.name for path in known}


def test_the_architecture_page_tells_the_life_of_a_group_as_the_code_does() -> None:
    """The table on the page is the one at the top of its file."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    code = (PACKAGE / "delivery/deciding/group.py").read_text(encoding="utf-8")
    [table] = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    assert [line.strip() for line in table.splitlines()] == [
        line.strip()
        for line in code.splitlines()
        if re.match(r" +[A-Z]+ +\w+ +->", line)
    ]


def test_the_runner_shares_names_awaits_and_counts_lines() -> None:
    """Blocks of a page build on each other, and an error names the page's line."""
    page = Path("page.md")
    text = PAGE_WITH_AN_ERROR
    blocks = blocks_of(text)
    namespace: dict[str, Any] = {}

    with pytest.raises(ZeroDivisionError) as raised:
        run_blocks([b for b in blocks if not b.reason_not_run], page, namespace)

    assert namespace["seen"] == [1]
    assert raised.traceback[-1].lineno + 1 == text.split("\n").index("1 / 0") + 1
