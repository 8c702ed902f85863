"""What the site shows on its first page, and how, is what the project holds."""

import os
import re
import runpy
import tomllib
from importlib import metadata
from pathlib import Path
from textwrap import indent
from typing import Any
from urllib.parse import urlsplit

import pytest

from amplitude_async import DeliveryStatus, DropReason

__all__: list[str] = []

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
STYLE = DOCS / "stylesheets" / "site.css"

PROMPT = re.compile(r"^\s*\$ ", re.MULTILINE)
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    """Return the text of a page."""
    return (DOCS / name).read_text("utf-8")


def home() -> str:
    """Return the first page, each paragraph on one line."""
    return re.sub(r"\s+", " ", page("index.md"))


# --- Home ---


@pytest.mark.parametrize(
    ("tab", "example"),
    [
        ("FastAPI", "fastapi_service.py"),
        ("aiohttp", "aiohttp_service.py"),
        ("Script", "report_script.py"),
        ("Celery", "celery_worker.py"),
    ],
)
def test_a_tab_shows_the_whole_example_that_runs(tab: str, example: str) -> None:
    """A newcomer copies a program that was tested, to its last line."""
    code = (ROOT / "examples" / example).read_text("utf-8")
    block = f'```python title="examples/{example}"\n{code}```\n'
    shown = page("index.md").split(f'=== "{tab}"\n')[1].split("\n=== ")[0]

    assert indent(block, "    ") in shown


def rows(name: str, mark: str) -> dict[str, list[str]]:
    """Return the rows of a measured table, by what stands in their first cell."""
    table = page(name).split(f"<!-- bench:{mark} -->")[1].split("<!-- /bench")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines()]
    return {first: rest for first, *rest in cells if rest}


@pytest.mark.parametrize("source", ["performance.md", "faults.md"])
def test_what_a_busy_server_takes_is_what_was_measured(source: str) -> None:
    """The first proof has the numbers of the table of five requests a second."""
    table = page(source).split("\n5 requests/s:\n")[1].split("\n\none at a time")[0]
    ours, other = (
        re.findall(rf"^\| {name} \| (.+) \|$", table, re.MULTILINE)[0].split(" | ")
        for name in ("ours", "amplitude")
    )

    assert ours[2] == "0"
    assert f'<span class="number">{ours[1]} delivered</span>' in home()
    assert f"5 requests a second and is offered {ours[0]} events a second" in home()
    assert (
        f"amplitude-analytics, offered {other[0]}, delivers {other[1]} and loses"
        f" {other[2]} events" in home()
    )


def test_the_lag_of_the_loop_is_what_was_measured() -> None:
    """The second proof has the numbers of the target, which is met."""
    found, verdict = rows("performance.md", "targets")[
        "loop lag at 10,000 events/s: p99 under 2 ms, none over 10 ms"
    ]
    late, most, without = re.findall(r"[\d.]+", found)

    assert verdict == "met"
    assert f'<span class="number">{late} ms late</span>' in home()
    assert f"10,000 events a second (p99), {most} ms at the most" in home()
    assert f"{without} ms without an SDK" in home()


def test_the_cost_of_an_event_is_what_was_measured() -> None:
    """The third proof has the numbers of the burst, and of its targets."""
    targets = rows("performance.md", "targets")
    cpu = rows("performance.md", "burst")["ours"][0]
    floor = targets["CPU per event at most 1.35 times the floor"]
    other = targets["CPU per event at most 1/8 of amplitude-analytics"]

    assert [floor[1], other[1]] == ["met", "met"]
    assert f'<span class="number">{cpu} µs per event</span>' in home()
    assert f"{other[0]} of amplitude-analytics" in home()
    assert f"{floor[0]} the floor" in home()


def test_whoever_comes_from_the_other_sdk_reads_five_lines() -> None:
    """Each of the names there is one that the guide of moving knows as well."""
    table = page("index.md").split("## You come from amplitude-analytics\n")[1]
    lines = re.findall(r"^\| (?!there|---)(.+) \| (.+) \|$", table, re.MULTILINE)[:5]
    moving = page("migrating-python.md")

    assert table.split("\n## ")[0].count("\n| ") == 1 + len(lines)
    for name in ("flush_interval_millis=10000", "callback(event, code, message)"):
        assert name in moving
        assert any(name in there for there, _ in lines)


def test_the_service_of_the_quickstart_is_the_one_of_the_readme() -> None:
    """Whose example is run; behind it stands only what serves it."""
    _, _, service = FENCE.findall((ROOT / "README.md").read_text("utf-8"))[0]
    shown = next(
        code for _, _, code in FENCE.findall(page("quickstart.md")) if "fastapi" in code
    )

    assert shown.replace("import uvicorn\n", "", 1).startswith(service)


def test_the_quickstart_ends_at_a_page_and_a_service_beside_it() -> None:
    """A newcomer saves a file, runs it, looks at the page, and then runs a service."""
    text = page("quickstart.md")
    steps = (
        'pip install "amplitude-async[cli]"',
        "amplitude-async emulator",
        'title="first.py"',
        "python first.py",
        "Open <http://127.0.0.1:8080/#/types>",
        'title="service.py"',
        "amplitude-async dev -- python service.py",
        "curl -X POST http://127.0.0.1:8000/users/user-1",
        "## Run the examples",
    )
    places = [text.index(step) for step in steps]

    assert places == sorted(places)


# --- Pictures ---


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """Return the names of the script that draws the exits."""
    return runpy.run_path(str(ROOT / "scripts" / "exits.py"))


def test_the_picture_of_the_exits_is_the_one_the_script_draws(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy for an old one: ``python scripts/exits.py --write``."""
    script["main"]([])

    assert script["PICTURE"].read_text("utf-8") == capsys.readouterr().out


def test_the_picture_has_every_exit(script: dict[str, Any]) -> None:
    """Each status is there, and of the dropped ones each reason exactly once."""
    exits = list(script["exits"]())
    reasons = [one.reason for one in exits if one.status == "DROPPED"]

    assert {one.status for one in exits} == {one.name for one in DeliveryStatus}
    assert sorted(reasons) == sorted(one.value for one in DropReason)


def test_the_picture_of_the_fleet_is_the_one_the_script_draws(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The remedy for an old one: ``python scripts/fleet.py --write``."""
    drawing = runpy.run_path(str(ROOT / "scripts" / "fleet.py"))
    drawing["main"]([])

    assert drawing["PICTURE"].read_text("utf-8") == capsys.readouterr().out


def test_every_picture_is_shown_and_is_there() -> None:
    """Each is of this project: nothing is fetched from elsewhere, none lies idle."""
    shown = {
        (path.parent / name).resolve()
        for path in DOCS.rglob("*.md")
        for name in re.findall(r"!\[[^]]*\]\(([^)#]+)", path.read_text("utf-8"))
    }
    there = {*(DOCS / "images").iterdir()} - {DOCS / "images" / "logo.svg"}

    assert [path for path in shown if not path.is_file()] == []
    assert there - shown == set()


def test_a_phone_has_a_picture_that_can_be_read_there() -> None:
    """For each ground one of the page as it is on a phone, and one as on a desk."""
    pictures = dict(
        re.findall(r"\(images/page-(.+?)\.png#only-\w+\)\{ \.(\w+)", page("index.md"))
    )

    assert pictures == {
        "stream-light": "wide",
        "stream-dark": "wide",
        "phone-light": "narrow",
        "phone-dark": "narrow",
    }


def test_the_logo_is_the_icon_of_the_page() -> None:
    """The site and the emulator's page are known by one mark."""
    drawings = [
        re.findall(r"^  <.*>$", path.read_text("utf-8"), re.MULTILINE)
        for path in (
            DOCS / "images" / "logo.svg",
            ROOT / "amplitude_async" / "emulator" / "page" / "icon.svg",
        )
    ]

    assert drawings[0]
    assert drawings[0] == drawings[1]


def test_plots_and_pictures_are_told_the_colours_of_the_reader() -> None:
    """White plots are turned over in the dark, and our own pictures know both."""
    style = STYLE.read_text("utf-8")
    images = DOCS / "images"
    drawn = [(images / name).read_text("utf-8") for name in ("exits.svg", "fleet.svg")]

    assert '[data-md-color-scheme="slate"] img[src*="benchmarks/"]' in style
    assert '[data-md-color-scheme="slate"] img[src$=".svg"]' in style
    assert all("prefers-color-scheme: dark" in picture for picture in drawn)


@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_colours_in_code_can_be_read(scheme: str) -> None:
    """Each that is ours has a contrast of 4.5 to its ground (WCAG AA)."""
    rules = STYLE.read_text("utf-8").split(f'[data-md-color-scheme="{scheme}"] {{')[1]
    colours = dict(re.findall(r"--md-code-([\w-]+): (#\w{6});", rules.split("}")[0]))
    ground = brightness(colours.pop("bg-color"))
    unreadable = {
        name
        for name, colour in colours.items()
        if contrast(brightness(colour), ground) < 4.5
    }

    assert colours
    assert unreadable == set()


def brightness(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG defines it."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    """Return the contrast of two brightnesses."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


# --- Copying ---


def test_no_command_is_shown_with_a_prompt() -> None:
    """What is copied can be pasted; where output is shown, a copy leaves it out."""
    for path in PAGES:
        for _, language, code in FENCE.findall(path.read_text("utf-8")):
            if language != "console":
                assert not PROMPT.search(code), f"{path}: {code}"
    style = STYLE.read_text("utf-8")

    assert "```console" not in (ROOT / "README.md").read_text("utf-8")
    assert "[data-md-copying] .gp,\n[data-md-copying] .go { display: none; }" in style


def test_commands_of_a_page_can_be_followed_word_by_word() -> None:
    """No line waits behind one that never ends, and all know one address."""
    shells = [
        (path, code)
        for path in PAGES
        for _, language, code in FENCE.findall(path.read_text("utf-8"))
        if language == "bash"
    ]
    waiting = re.compile(r"amplitude-async (?:emulator|dev)\b[^&|\n]*\n\w")
    stuck = [path for path, code in shells if waiting.search(code)]
    ports = {
        port
        for _, code in shells
        for port in re.findall(r"_SERVER_URL=http://127.0.0.1:(\d+)", code)
    }

    assert stuck == []
    assert ports == {"8080"}


# --- Metadata ---


def test_the_urls_of_the_project_cannot_be_mistaken_for_real_ones() -> None:
    """Until there is a home, each is of a domain that never resolves (RFC 2606)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    hosts = {urlsplit(url).hostname for url in project["urls"].values()}

    assert {"Documentation", "Source", "Issues", "Changelog"} == set(project["urls"])
    assert hosts == {"amplitude-async.invalid"}
    # What is no page of the site is at the source.
    name = project["urls"]["Changelog"].removeprefix(project["urls"]["Source"])
    assert (ROOT / name).is_file()


def test_a_link_of_the_readme_leads_to_a_file_that_is_distributed() -> None:
    """All are relative: they work in the repository and in the source distribution."""
    text = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    included = settings["hatch"]["build"]["targets"]["sdist"]["include"]

    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []
    assert {f"/{link.split('/')[0]}" for link in links} <= {*included, "/LICENSE"}


def test_the_readme_of_the_package_has_links_that_work_elsewhere() -> None:
    """An index shows it without the files beside it: each link is a whole address."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    urls = project["project"]["urls"]
    hook = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    source = (ROOT / "README.md").read_text("utf-8")
    shown = source
    for change in hook["substitutions"]:
        shown = re.sub(change["pattern"], change["replacement"], shown)

    assert hook["fragments"] == [{"path": "README.md"}]
    links = re.findall(r"\]\(([^)]+)\)", shown)
    expected = [elsewhere(link, urls) for link in re.findall(r"\]\(([^)]+)\)", source)]
    assert links == expected


def elsewhere(link: str, urls: dict[str, str]) -> str:
    """Return the whole address of what a relative link leads to."""
    name, hash_, anchor = link.partition("#")
    if name.startswith("docs/images/"):
        return urls["Documentation"] + name.removeprefix("docs/")
    if name.startswith("docs/"):
        page_name = name.removeprefix("docs/").removesuffix(".md")
        return f"{urls['Documentation']}{page_name}/{hash_}{anchor}"
    return f"{urls['Source']}{link}"


def test_the_installed_readme_is_the_one_with_whole_addresses() -> None:
    """The wheel that the suite runs on was built with them."""
    if "AMPLITUDE_ASYNC_EXPECT_WHEEL" not in os.environ:
        pytest.skip("only a built wheel has the papers of this build")
    text = metadata.distribution("amplitude-async").read_text("METADATA") or ""

    assert "# amplitude-async" in text
    assert re.findall(r"\]\((?!https://)[^)]+\)", text) == []
