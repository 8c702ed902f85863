"""Fixtures for the whole suite."""

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

if TYPE_CHECKING:
    from amplitude_async.emulator import Emulator

__all__ = ["blocking_calls_fail", "emulator"]

CLI_TESTS = Path(__file__).parent / "cli"

# Without the extra, these files could not even be imported.
collect_ignore = [] if find_spec("typer") else ["cli"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of the command line as needing its extra."""
    for item in items:
        if item.path.is_relative_to(CLI_TESTS):
            item.add_marker("cli")


@pytest.fixture(autouse=True)
def blocking_calls_fail(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make a blocking call of ours on a running loop raise, and so fail the test."""
    if request.node.get_closest_marker("allow_blocking"):
        yield
        return
    with blockbuster_ctx(scanned_modules=["amplitude_async"]):
        yield


@pytest.fixture
async def emulator() -> AsyncIterator["Emulator"]:
    """Yield a running local Amplitude server."""
    # Here and not above, so that tests of other parts need no emulator to start.
    from amplitude_async.emulator import Emulator  # noqa: PLC0415

    async with Emulator() as running:
        yield running
