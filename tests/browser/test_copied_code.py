"""The code that the page gives for an event sends such an event, and asserts it."""

import textwrap
from typing import Any

import aiohttp

from amplitude_async import Amplitude, Identify
from amplitude_async.emulator import Emulator
from amplitude_async.mparticle import Batch
from amplitude_async.testing import capture
from tests.browser.conftest import Opened, rows_of, until
from tests.browser.traffic import reject, send_batch, shop

__all__: list[str] = []

# Names that are no keywords, fields of an event, quotes, lines and marks.
AWKWARD = {
    "event_type": 'It\'s "quoted"\\',
    "user_id": "user-1",
    "event_properties": {
        "class": 1,
        "price": 2.5,
        "with blank": "a\nb\u202ec\U000e0001",
        "nothing": None,
        "yes": True,
        "list": [1, {"deep": {"er": "é"}}],
    },
}


async def _run(code: str, **names: Any) -> None:
    """Run lines that may await."""
    source = f"async def run():\n{textwrap.indent(code, '    ')}"
    exec(compile(source, "copied", "exec"), names)  # noqa: S102 - code from the page
    await names["run"]()


async def test_what_is_copied_runs_and_fits(opened: Opened, emulator: Emulator) -> None:
    """For each event of a shop, and for one that is made to break it."""
    await shop(emulator, customers=1)
    await reject(emulator)
    async with aiohttp.ClientSession() as session:
        body = {"api_key": "test-key", "events": [AWKWARD]}
        await session.post(emulator.httpapi_url, json=body)
    page = await opened("#/stream?q=stored")
    await rows_of(page).nth(7).wait_for()
    for number in range(await rows_of(page).count()):
        row = rows_of(page).nth(number)
        await row.click()
        key = await row.get_attribute("data-key")
        await until(
            page,
            "(key) => document.querySelector('#detail').dataset.shown === key",
            f"entry:{key}",
        )
        copied = {}
        for name in ("Python", "Test"):
            await page.get_by_role("button", name=f"Copy as {name}").click()
            await page.get_by_text("copied", exact=True).wait_for()
            copied[name] = await page.evaluate("navigator.clipboard.readText()")
        async with capture() as events, Amplitude("test-key") as client:
            await _run(copied["Python"], client=client, Identify=Identify)
            await _run(copied["Test"], amplitude_events=events)
            events.assert_no_rejections()


async def test_a_copied_batch_is_one(opened: Opened, emulator: Emulator) -> None:
    """The call for mParticle builds a batch that this library takes."""
    await send_batch(emulator)
    page = await opened("#/mparticle")
    await rows_of(page).first.click()
    await page.get_by_role("button", name="Copy as Python").click()
    await page.get_by_text("copied", exact=True).wait_for()
    code = await page.evaluate("navigator.clipboard.readText()")
    build, _, send = code.rpartition("\n")
    assert send == "await client.upload(batch)"
    names: dict[str, Any] = {"Batch": Batch}
    exec(build, names)  # noqa: S102 - code from the page
    assert names["batch"].events[0].event_name == "Video Played"
