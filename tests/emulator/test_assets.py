"""The files of the page, and what a browser is told about them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from amplitude_async.emulator import Emulator, assets

__all__: list[str] = []

INDEX = '<script nonce="{{nonce}}" src="/_emulator/page/page.js"></script>'


@pytest.fixture
async def session(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session with an emulator whose page has a few files."""
    files = {
        "index.html": assets._File("text/html", INDEX.encode()),  # noqa: SLF001 - as read
        "page.js": assets._File("text/javascript", b"'use strict';"),  # noqa: SLF001 - as above
        "logo.png": assets._File("image/png", b"\x89PNG"),  # noqa: SLF001 - as above
    }
    monkeypatch.setattr(assets, "_read_files", lambda: files)
    async with aiohttp.ClientSession(emulator.url) as session:
        yield session


async def test_scripts_need_a_nonce_that_is_new_each_time(
    session: aiohttp.ClientSession,
) -> None:
    """Nothing that an event holds knows it, so nothing of an event can run."""
    nonces = []
    for _ in range(2):
        async with session.get("/") as response:
            policy = response.headers["Content-Security-Policy"]
            page = await response.text()
        (nonce,) = re.findall(r"script-src 'nonce-([\w-]{20,})'", policy)
        assert f'nonce="{nonce}"' in page
        assert assets.NONCE_MARK not in page
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


async def test_the_page_may_do_nothing_it_does_not_need(
    session: aiohttp.ClientSession,
) -> None:
    """No foreign host, no inline script, no frame, no form, no markup from text."""
    async with session.get("/") as response:
        policy = response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for name in ("default-src", "frame-ancestors", "base-uri", "form-action"):
        assert rules[name] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    ("name", "kind", "charset"),
    [("page.js", "text/javascript", "utf-8"), ("logo.png", "image/png", None)],
)
async def test_a_file_is_what_it_is(
    session: aiohttp.ClientSession, name: str, kind: str, charset: str | None
) -> None:
    """With its type, since browsers may not guess."""
    async with session.get(f"/_emulator/page/{name}") as response:
        assert (response.status, response.content_type) == (200, kind)
        assert response.charset == charset
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "name", ["index.html", "absent.js", "..", "%2e%2e%2fpage.py", "a/b", "page.py"]
)
async def test_there_are_no_other_files(
    session: aiohttp.ClientSession, name: str
) -> None:
    """Only those of the page, by their own names."""
    async with session.get(f"/_emulator/page/{name}") as response:
        assert response.status == 404


async def test_a_foreign_page_gets_no_file(session: aiohttp.ClientSession) -> None:
    """Nor does a name that points here."""
    for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "a.example"}):
        async with session.get("/_emulator/page/page.js", headers=headers) as response:
            assert response.status == 403


def test_only_files_of_a_page_are_read() -> None:
    """Whatever else lies there is nobody's."""
    kinds = {name.rpartition(".")[2] for name in assets._read_files()}  # noqa: SLF001 - what it finds
    assert kinds <= {"html", "css", "js", "svg", "png", "ico", "txt", "webmanifest"}
