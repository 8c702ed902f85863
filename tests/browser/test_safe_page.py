"""Whatever events hold and whoever else is open: the page does only its own work."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator
from tests.browser.conftest import Opened, rows_of
from tests.browser.traffic import HOSTILE

if TYPE_CHECKING:
    from playwright.async_api import Browser

__all__ = ["elsewhere"]


async def test_what_events_hold_is_shown_and_never_run(
    opened: Opened, emulator: Emulator
) -> None:
    """Scripts are text, controls and direction marks are written out."""
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        for text in HOSTILE:
            clean = text.encode("utf-8", "replace").decode()
            await client.track(
                clean[:1000],
                user_id=f"user {clean[:100]}",
                event_properties={clean[:900]: [clean, {clean: clean}]},
            )
    async with aiohttp.ClientSession() as session:
        body = {
            "api_key": "test-key",
            "events": [
                {
                    "event_type": text,
                    "user_id": text,
                    "device_id": text,
                    "user_properties": {text: text},
                    "groups": {text: text},
                    "time": text,
                }
                for text in HOSTILE
            ],
        }
        await session.post(emulator.httpapi_url, json=body)
    page = await opened()
    await rows_of(page).first.wait_for()
    for number in range(await rows_of(page).count()):
        await rows_of(page).nth(number).click()
        await page.locator("#detail .content").wait_for()
        await page.get_by_role("button", name="Copy as Python").click()
    for view in ("users", "types", "requests"):
        await page.goto(f"{emulator.url}/#/{view}")
        await page.locator(f"#{view}-rows > .row").first.click()
        await page.locator("#detail h2 bdi").wait_for()
    assert await page.evaluate("window.hacked") is None
    shown = await page.evaluate("document.body.textContent")
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    # The chart's own drawings are not an event's.
    drawn = ".chart > svg, .chart .legend a > svg"
    made = f"main :is(script, img, [onload], [onerror], svg:not({drawn}))"
    assert await page.locator(made).count() == 0
    assert await page.locator(f"main :is({drawn})").count() > 0


# What a page from elsewhere may try, beginning with what it may do: send events.
TRIAL = """async (base) => {
  const headers = { "Content-Type": "application/json" };
  const told = (path, options) =>
    fetch(base + path, options).then((answer) => answer.status, () => "refused");
  const listened = new Promise((done) => {
    const source = new EventSource(base + "/_emulator/feed?after=0");
    source.addEventListener("hello", () => done("read"));
    source.addEventListener("error", () => {
      source.close();
      done("refused");
    });
  });
  const frame = document.createElement("iframe");
  const loaded = new Promise((done) => frame.addEventListener("load", done));
  frame.src = base + "/";
  document.body.append(frame);
  await loaded;
  const event = { event_type: "Sent", user_id: "user-9" };
  const body = JSON.stringify({ api_key: "test-key", events: [event] });
  const fault = JSON.stringify({ status: 503 });
  await told("/_emulator/faults", { method: "POST", mode: "no-cors", body: fault });
  // Each would hold one of the feed's places.
  for (const name of ["a", "b", "c", "d"]) {
    const feed = `http://${name}.localhost:${new URL(base).port}/_emulator/feed`;
    for (let number = 0; number < 6; number++) new Image().src = `${feed}?${number}`;
  }
  return {
    sent: await told("/2/httpapi", { method: "POST", headers, body }),
    read: await told("/_emulator/entries"),
    armed: await told("/_emulator/faults", { method: "POST", headers, body: fault }),
    cleared: await told("/_emulator/clear", { method: "POST", headers, body: "{}" }),
    listened: await listened,
  };
}"""


@pytest.fixture
async def elsewhere() -> AsyncIterator[str]:
    """Yield the address of a page of another origin."""

    async def page_of_theirs(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><body>", content_type="text/html")

    app = web.Application()
    app.add_routes([web.get("/", page_of_theirs)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_a_foreign_page_may_send_and_gets_nothing(
    browser: "Browser", emulator: Emulator, elsewhere: str
) -> None:
    """It reads nothing, changes nothing and cannot put the page into a frame."""
    page = await browser.new_page()
    await page.goto(elsewhere)
    result = await page.evaluate(TRIAL, emulator.url)
    assert result.pop("sent") == 200
    assert set(result.values()) == {"refused"}
    assert page.frames[1].url == "chrome-error://chromewebdata/"
    assert emulator.faults.pending == ()
    assert len(emulator.events) == 1
    await asyncio.sleep(0.05)
    assert not emulator._book._bell.listeners  # noqa: SLF001 - nobody else knows
