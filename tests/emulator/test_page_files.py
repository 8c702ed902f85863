"""The files of the page: few, small, their own, and without a way to become markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amplitude_async import emulator

__all__: list[str] = []

FOLDER = Path(emulator.__file__).parent / "page"
FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
# Whatever makes markup or code of text, or styles that no nonce covers.
DANGEROUS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    r"|DOMParser|createContextualFragment|srcdoc|javascript:|setAttribute\(\"style"
)


def test_all_files_together_are_small() -> None:
    """A page that opens at once, and a wheel that stays small."""
    assert sum(path.stat().st_size for path in FILES) < 120_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    """The page works without a network, and nobody learns that it is open."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text))
    assert found <= {"http://www.w3.org"}  # the name of SVG, which nobody loads


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_text(path: Path) -> None:
    """What comes from an event is text, whatever it looks like."""
    assert DANGEROUS.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_imports_name_files_that_are_there(path: Path) -> None:
    """Each by its own name, since nothing is built."""
    text = path.read_text(encoding="utf-8")
    names = re.findall(r'from "([^"]+)"', text)
    assert all((FOLDER / name).is_file() for name in names)


def test_the_markup_holds_no_script_and_no_style() -> None:
    """Not in handlers and not in attributes: the policy would refuse them."""
    text = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"\s(?:on\w+|style)=", text) == []
    scripts = re.findall(r"<(script|style|link rel=\"stylesheet\")([^>]*)>", text)
    assert scripts
    assert all('nonce="{{nonce}}"' in attributes for _, attributes in scripts)
