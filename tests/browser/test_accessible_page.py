"""Anybody can use the page, in both schemes and on a phone."""

import pytest

from amplitude_async.emulator import Emulator
from tests.browser.conftest import Opened
from tests.browser.traffic import reject, send_batch, shop

__all__: list[str] = []

AXE = """async () => {
  const { violations } = await axe.run();
  return violations.map((one) => [one.id, one.nodes[0].html]);
}"""
VIEWS = [
    "stream",
    "stream?open=entry:3",
    "users?open=user:user-1",
    "types",
    "requests",
    "mparticle",
    "faults",
]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["wide", "phone"])
async def test_axe_finds_nothing(
    opened: Opened, emulator: Emulator, axe: str, dark: bool, phone: bool
) -> None:
    """In no view, and none is wider than its window."""
    await shop(emulator, customers=2)
    await reject(emulator)
    await send_batch(emulator)
    page = await opened(dark=dark, phone=phone)
    session = await page.context.new_cdp_session(page)
    await session.send("Runtime.evaluate", {"expression": axe})
    found = {}
    for view in VIEWS:
        await page.evaluate(f"location.hash = '#/{view}'")
        await page.locator(".view:not([hidden])").wait_for()
        if "open" in view:
            await page.locator("#detail.open").wait_for()
        found[view] = await page.evaluate(AXE)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not any(found.values()), found
