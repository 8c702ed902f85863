"""Whatever arrives: what a person reads stays where it is, and the page stays quick."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator
from tests.browser.conftest import Opened, rows_of, until
from tests.browser.traffic import flood, shop

if TYPE_CHECKING:
    from playwright.async_api import Browser

__all__: list[str] = []

TO_THE_END = "(element) => { element.scrollTop = element.scrollHeight; }"
NEXT_FRAME = """() => new Promise((done) =>
  requestAnimationFrame(() => requestAnimationFrame(done)))"""
LAST = 'Number(document.querySelector("#stream-rows > .row:last-child").dataset.n)'
# Where one row does not follow the other and no gap says so.
HOLES = """() => {
  const rows = [...document.querySelectorAll("#stream-rows > .row")].map(
    ({ dataset }) => [Number(dataset.n), Number(dataset.from ?? dataset.n)]);
  return rows.slice(1).filter(([n], at) => n !== rows[at][1] - 1);
}"""
LATEST = """() => {
  const row = document.querySelector("#stream-rows > .row .pairs");
  return row?.textContent.includes("99999");
}"""


async def test_what_is_read_does_not_move(opened: Opened, emulator: Emulator) -> None:
    """Scrolled down, the rows stay, and a button tells how many are new."""
    await flood(emulator, 80, batch=80)
    page = await opened()
    await rows_of(page).nth(60).wait_for()
    scroller = page.locator("#view-stream .scroller")
    await scroller.evaluate("(element) => { element.scrollTop = 600; }")
    await page.evaluate(NEXT_FRAME)
    read = rows_of(page).nth(25)
    key, before = await read.get_attribute("data-key"), await read.bounding_box()
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        for number in range(7):
            await client.track(f"New {number}", user_id="user-1")
    news = page.locator(".news")
    await news.filter(has_text="7 new").wait_for()
    same = page.locator(f"#stream-rows > .row[data-key='{key}']")
    assert await same.bounding_box() == before
    await news.click()
    await rows_of(page).first.filter(has_text="New 6").wait_for()
    assert await scroller.evaluate("(element) => element.scrollTop") == 0


async def test_a_selection_and_an_open_detail_survive(
    opened: Opened, emulator: Emulator
) -> None:
    """Whatever arrives: rows are put in, never made again."""
    await shop(emulator, customers=1)
    page = await opened("#/stream?q=-zzz")
    await rows_of(page).nth(2).click()
    detail = page.locator("#detail")
    await detail.get_by_role("button", name="Copy as Test").click()
    await page.evaluate("""() => {
      window.row = document.querySelector("#stream-rows > .row:nth-child(2)");
      getSelection().selectAllChildren(document.querySelector("#detail pre"));
    }""")
    marked = await page.evaluate("String(getSelection())")
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        for number in range(30):
            await client.track(f"New {number}", user_id="user-1")
    await rows_of(page).first.filter(has_text="New 29").wait_for()
    assert await page.evaluate("String(getSelection())") == marked
    assert await page.evaluate("window.row.isConnected")
    assert await page.locator("[aria-selected=true]").count() == 1
    await page.evaluate("getSelection().selectAllChildren(window.row)")
    marked = await page.evaluate("String(getSelection())")
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        await client.track("Held", user_id="user-1")
    await page.locator(".news", has_text="1 new").wait_for()
    assert await page.evaluate("String(getSelection())") == marked


async def test_100_000_events_leave_the_page_smooth(
    browser: "Browser", opened: Opened, emulator: Emulator, tmp_path: Path
) -> None:
    """No task of the page takes more than 50 ms of its thread, and it ends up to date.

    Of its thread, not of the clock: this machine has other things to do.
    """
    page = await opened()
    path = tmp_path / "trace.json"
    categories = ["disabled-by-default-devtools.timeline"]
    await browser.start_tracing(page=page, path=path, categories=categories)
    await flood(emulator, 100_000)
    await until(page, LATEST)
    await browser.stop_tracing()
    assert max(_tasks(json.loads(path.read_bytes()))) < 50
    assert await rows_of(page).count() <= 300
    assert await page.evaluate(HOLES) == []
    # What the page let go is there again for whoever scrolls.
    scroller = page.locator("#view-stream .scroller")
    before = await page.evaluate(LAST)
    await scroller.evaluate(TO_THE_END)
    await until(page, f"{LAST} < {before}")
    assert await page.evaluate(HOLES) == []


def _tasks(trace: dict[str, Any]) -> list[float]:
    """Return the milliseconds that each task of the page's main thread worked."""
    events = trace["traceEvents"]
    main = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        event.get("tdur", 0) / 1000
        for event in events
        if event["name"] == "RunTask" and (event["pid"], event["tid"]) in main
    ]


async def test_older_ones_are_loaded(opened: Opened, emulator: Emulator) -> None:
    """At the end of the list, while the page keeps a bounded number of rows."""
    await flood(emulator, 1_000)
    page = await opened()
    await rows_of(page).nth(50).wait_for()
    scroller = page.locator("#view-stream .scroller")
    for _ in range(20):
        await scroller.evaluate(TO_THE_END)
        await asyncio.sleep(0.05)
        assert await rows_of(page).count() <= 300
    await until(
        page,
        """() => {
      const scroller = document.querySelector("#view-stream .scroller");
      scroller.scrollTop = scroller.scrollHeight;
      return document.querySelector("#stream-rows > .row:last-child").dataset.n === "1";
    }""",
    )
    await page.locator(".news", has_text="Newest").click()
    await rows_of(page).first.filter(has_text="999").wait_for()


async def test_what_is_loaded_stands_behind_newer_ones(
    opened: Opened, emulator: Emulator
) -> None:
    """The row that is open stays in a flood, and nothing comes to stand below it."""
    await flood(emulator, 10)
    page = await opened()
    await rows_of(page).nth(4).click()
    await flood(emulator, 3_000, first=10)
    await until(page, LATEST.replace("99999", "3009"))
    scroller = page.locator("#view-stream .scroller")
    before = await page.evaluate("document.querySelectorAll('.row').length")
    await scroller.evaluate(TO_THE_END)
    await until(
        page, "(before) => document.querySelectorAll('.row').length > before", before
    )
    assert await page.evaluate(HOLES) == []


async def test_another_emulator_is_noticed(opened: Opened, emulator: Emulator) -> None:
    """One at the same address has other events, even where it has more of them."""
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        await client.track("Old", user_id="user-1")
    page = await opened()
    await rows_of(page).filter(has_text="Old").wait_for()
    await emulator.stop()
    async with Emulator(port=emulator.port) as other:
        await flood(other, 5)
        await rows_of(page).nth(4).wait_for()
        assert await rows_of(page).count() == 5
        assert await rows_of(page).filter(has_text="Old").count() == 0
