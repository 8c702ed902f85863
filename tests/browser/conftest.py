"""A real browser for the emulator's page, and axe-core where it is to be had."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from amplitude_async.emulator import Emulator

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page

__all__ = ["PHONE", "WIDE", "Opened", "axe", "browser", "opened", "rows_of", "until"]

WIDE = (1280, 800)
PHONE = (390, 844)
START_SECONDS = 60_000

Opened = Callable[..., Awaitable["Page"]]


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    """Yield a Chromium that is installed here, or skip and say how to have one."""
    api = pytest.importorskip(
        "playwright.async_api", reason="needs Playwright: nox -s browser installs it"
    )
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium, or set CHROMIUM")
    async with api.async_playwright() as playwright:
        # Without the sandbox, since it refuses to run as root, as containers do.
        browser = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"], timeout=START_SECONDS
        )
        yield browser
        await browser.close()


@pytest.fixture
async def opened(browser: "Browser", emulator: Emulator) -> AsyncIterator[Opened]:
    """Yield a function that opens the page; at the end it must have had no errors."""
    problems: list[str] = []

    def note(said: "ConsoleMessage") -> None:
        # What is not there any more is told in the page itself, as is its server.
        told = "status of 404" in said.text or "net::ERR_" in said.text
        if said.type == "error" and not told:
            problems.append(said.text)

    async def open_page(
        address: str = "#/stream", *, dark: bool = False, phone: bool = False
    ) -> "Page":
        width, height = PHONE if phone else WIDE
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        page = await context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", note)
        await page.goto(f"{emulator.url}/{address}")
        await page.wait_for_selector("#live[data-state=live]", state="attached")
        return page

    yield open_page
    assert problems == []


@pytest.fixture
def axe() -> str:
    """Return the source of axe-core, or skip and say how to have it."""
    path = os.environ.get("AXE_CORE")
    if not path:
        pytest.skip(
            "needs axe-core: set AXE_CORE to its axe.min.js; nox -s browser does"
        )
    return Path(path).read_text(encoding="utf-8")


def rows_of(page: "Page") -> Any:
    """Return the rows of the stream."""
    return page.locator("#stream-rows > .row")


async def until(
    page: "Page", script: str, argument: object = None, *, seconds: float = 60.0
) -> None:
    """Wait for a script of the page to be true.

    Not with Playwright's own way, which the page's policy forbids: it evaluates text
    inside the page.
    """
    async with asyncio.timeout(seconds):
        while not await page.evaluate(script, argument):  # noqa: ASYNC110 - of the page
            await asyncio.sleep(0.02)
