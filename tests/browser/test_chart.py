"""The chart of events over time, drawn in a real browser from the client's events."""

import re
from typing import TYPE_CHECKING

import pytest

from amplitude_async import Amplitude
from amplitude_async.emulator import Emulator
from tests.browser.conftest import Opened, rows_of, until
from tests.browser.traffic import HOSTILE, flood, reject, send_batch, shop

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

__all__: list[str] = []

AXE = """async () => {
  const { violations } = await axe.run();
  return violations.map((one) => [one.id, one.nodes[0].html]);
}"""
# How much of the chart's height all bars together take, in hundredths.
DRAWN = """() => [...document.querySelectorAll("#view-types .chart .part[width]")]
  .filter((one) => !one.closest(".legend"))
  .reduce((sum, one) => sum + Number(one.getAttribute("height")), 0)"""
SHAPES = "document.querySelectorAll('#view-types .chart > svg *').length"


async def chart_of(page: "Page") -> "Locator":
    """Return the chart above the list, once it is there."""
    chart = page.locator("#view-types .chart")
    await chart.wait_for()
    return chart


async def told(page: "Page", text: str) -> str:
    """Wait until the chart says something of what it shows, and return all of it."""
    image = page.locator("#view-types .chart [role=img]")
    where = "document.querySelector('#view-types .chart [role=img]')"
    said = f"(text) => {where}.getAttribute('aria-label')?.includes(text)"
    await until(page, said, text)
    return await image.get_attribute("aria-label") or ""


async def test_a_newcomers_first_event_is_a_bar_and_the_next_lets_it_grow(
    opened: Opened, emulator: Emulator
) -> None:
    """While they look, and said in words as well."""
    page = await opened("#/types")
    assert not await page.locator("#view-types .chart").is_visible()
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        await client.track("Song Played", user_id="user-1")
        await client.flush()
        chart = await chart_of(page)
        text = await told(page, " 1 in all")
        assert text.startswith("Events over the last minute: 1 in all. The most in 1 s")
        assert re.search(r": 1, at \d\d:\d\d:\d\d\.$", text)
        # Of a scale that ends at two.
        assert await page.evaluate(DRAWN) == pytest.approx(50)
        await client.track("Song Played", user_id="user-1")
        await client.flush()
        await told(page, " 2 in all")
        assert await page.evaluate(DRAWN) == pytest.approx(100)
    assert await chart.get_by_role("heading", name="Events over time").is_visible()
    legend = chart.get_by_role("link")
    assert await legend.all_inner_texts() == ["Song Played\n2"]
    row = page.locator("#types-rows .type")
    mark = chart.locator(".legend .part")
    assert await mark.get_attribute("data-colour") == await row.get_attribute(
        "data-colour"
    )


async def test_rejected_ones_are_told_apart(opened: Opened, emulator: Emulator) -> None:
    """On top of their bar, in the legend, and in words."""
    await shop(emulator)
    await reject(emulator)
    page = await opened("#/types")
    chart = await chart_of(page)
    assert ", 2 of them rejected." in await told(page, "in all")
    assert await chart.locator(".bar .part.rejected").count() >= 1
    await chart.get_by_role("link", name="rejected").click()
    await page.wait_for_url(re.compile(r"#/stream\?q=rejected$"))
    await rows_of(page).nth(1).wait_for()
    assert await rows_of(page).count() == 2


async def test_the_legend_filters(opened: Opened, emulator: Emulator) -> None:
    """By type, and by what no type has for itself."""
    await shop(emulator, customers=2)
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        await client.track("Rare One", user_id="user-1")
        await client.track("Rare Two", user_id="user-1")
    page = await opened("#/types")
    chart = await chart_of(page)
    await chart.get_by_role("link", name="Order Paid").click()
    await page.wait_for_url(re.compile("q=type%3A%22Order"))
    await until(page, "document.querySelectorAll('#stream-rows > .row').length === 2")
    await page.go_back()
    await chart.get_by_role("link", name="others").click()
    await until(page, "document.querySelectorAll('#stream-rows > .row').length === 1")
    assert await rows_of(page).first.locator(".type").inner_text() == "Rare Two"


async def test_a_type_has_its_own(opened: Opened, emulator: Emulator) -> None:
    """In its detail, and it grows there too."""
    await shop(emulator, customers=3)
    page = await opened("#/types?open=type:Search")
    image = page.locator("#detail .chart").get_by_role("img")
    await image.wait_for()
    assert ": 3 in all." in (await image.get_attribute("aria-label") or "")
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        await client.track("Search", user_id="user-1")
    label = "document.querySelector('#detail [role=img]').getAttribute('aria-label')"
    await until(page, f"{label}.includes(': 4 in all.')")
    assert await page.locator("#detail .chart").get_by_role("link").count() == 1


async def test_pause_clear_and_undo_hold_for_it(
    opened: Opened, emulator: Emulator
) -> None:
    """As for all the rest of the page."""
    await shop(emulator, customers=1)
    page = await opened("#/types")
    chart = await chart_of(page)
    await told(page, " 6 in all")
    await page.get_by_role("button", name="Pause").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        await client.track("Search", user_id="user-1")
    counter = page.locator(".counter.stored")
    await counter.filter(has_text="7").wait_for()
    # What was under way when it was paused may still ask once.
    assert " 6 in all" in await told(page, "in all")
    assert len([url for url in asked if "timeline" in url]) <= 1
    await page.get_by_role("button", name="Resume").click()
    await told(page, " 7 in all")
    await page.get_by_role("button", name="Clear").click()
    await chart.wait_for(state="hidden")
    await page.get_by_role("button", name="Undo").click()
    await chart.wait_for()
    await told(page, " 7 in all")


async def test_a_view_that_nobody_sees_asks_for_nothing(
    opened: Opened, emulator: Emulator
) -> None:
    """The stream is as quick as before."""
    await shop(emulator, customers=1)
    page = await opened("#/types")
    await chart_of(page)
    await page.get_by_role("link", name="Stream").click()
    await rows_of(page).first.wait_for()
    await page.evaluate("() => new Promise((done) => setTimeout(done, 40))")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await flood(emulator, 2_000, batch=500)
    await rows_of(page).first.filter(has_text="1999").wait_for()
    assert not [url for url in asked if "timeline" in url or "types" in url]


async def test_a_flood_draws_no_more_than_a_chart(
    opened: Opened, emulator: Emulator
) -> None:
    """However many events and types there are: six series, and the others in one."""
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        for number in range(900):
            await client.track(f"Made up {number}", user_id="user-1")
    page = await opened("#/types")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await chart_of(page)
    await flood(emulator, 10_000)
    await told(page, " 10,900 in all")
    assert await page.evaluate(SHAPES) <= 60 * 11 + 3
    links = page.locator("#view-types .legend a")
    assert await links.count() == 7
    assert await links.last.inner_text() == "others\n2,328"


async def test_names_are_text_in_it(opened: Opened, emulator: Emulator) -> None:
    """Whatever somebody calls an event: in the legend, and in what a bar says."""
    async with Amplitude("test-key", server_url=emulator.httpapi_url) as client:
        for name in HOSTILE[:5]:
            await client.track(name, user_id="user-1")
    page = await opened("#/types")
    chart = await chart_of(page)
    texts = await chart.locator("bdi, title").all_text_contents()
    assert any("<script>" in text for text in texts)
    assert any("\\u202e" in text for text in texts)
    assert not any("\u202e" in text for text in texts)
    assert await chart.locator("script, img, [onload]").count() == 0
    assert await page.evaluate("window.hacked === undefined")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["wide", "phone"])
async def test_axe_finds_nothing_in_it(
    opened: Opened, emulator: Emulator, axe: str, dark: bool, phone: bool
) -> None:
    """With all it can have, and within its window."""
    await shop(emulator)
    await reject(emulator)
    await send_batch(emulator)
    page = await opened("#/types?open=type:Search", dark=dark, phone=phone)
    await chart_of(page)
    await page.locator("#detail .chart").wait_for()
    session = await page.context.new_cdp_session(page)
    await session.send("Runtime.evaluate", {"expression": axe})
    assert await page.evaluate(AXE) == []
    await page.evaluate("location.hash = '#/types'")
    await page.locator("#detail .chart").wait_for(state="detached")
    assert await page.evaluate(AXE) == []
    for part in await page.locator("#view-types .chart > *").all():
        box = await part.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= (390 if phone else 1280)
