"""The pictures of the docs: `AMPLITUDE_ASYNC_PICTURES=docs/images` keeps them."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amplitude_async.emulator import Emulator
from tests.browser.conftest import Opened
from tests.browser.traffic import morning, reject, send_batch, shop

__all__: list[str] = []

ORDER = "stream?open=entry:5"
PICTURES = {
    "stream-light": (ORDER, False, False),
    "stream-dark": (ORDER, True, False),
    "rejected": ("stream?q=rejected&open=entry:27", False, False),
    "user": ("users?open=user:user-2", False, False),
    "types": ("types?open=type:Search", False, False),
    "types-dark": ("types?open=type:Search", True, False),
    "faults": ("faults", False, False),
    "phone-light": ("stream", False, True),
    "phone-dark": ("stream", True, True),
}


class _Clock:
    """The time, or some of it ago."""

    def __init__(self) -> None:
        self.ago = 0.0

    def __call__(self) -> float:
        return time.time() - self.ago

    def go_on(self, seconds: float) -> None:
        self.ago -= seconds


@pytest.fixture
def clock() -> _Clock:
    """Return the clock of the emulator."""
    return _Clock()


@pytest.fixture
async def emulator(clock: _Clock) -> AsyncIterator[Emulator]:
    """Yield an emulator that can have been there for a while."""
    async with Emulator(clock=clock) as running:
        yield running


@pytest.mark.parametrize("name", PICTURES)
async def test_a_picture_is_taken(
    opened: Opened, emulator: Emulator, clock: _Clock, tmp_path: Path, name: str
) -> None:
    """Of this build, with the events of a small shop, and it is no empty one."""
    address, dark, phone = PICTURES[name]
    if name.startswith("types"):
        clock.ago = 57 * 60.0
        await morning(emulator, clock.go_on)
    await shop(emulator)
    await reject(emulator)
    await send_batch(emulator)
    if name == "faults":
        emulator.faults.add("outage", "throttled")
    page = await opened(f"#/{address}", dark=dark, phone=phone)
    await page.locator(".view:not([hidden])").wait_for()
    if "open" in address:
        await page.locator("#detail.open").wait_for()
    # Nothing moves in it, and nothing is half drawn.
    await page.evaluate("document.fonts.ready")
    await page.wait_for_timeout(300)
    # It makes its folder by itself.
    path = Path(os.environ.get("AMPLITUDE_ASYNC_PICTURES") or tmp_path)
    taken = await page.screenshot(path=path / f"page-{name}.png", animations="disabled")
    assert len(taken) > 10_000
