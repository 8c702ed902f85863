"""Fixtures for the whole suite."""

import os
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from amplitude_async.emulator import Emulator

__all__ = ["blocking_calls_fail", "emulator"]

CLI_TESTS = Path(__file__).parent / "cli"

# In checks a failure must come from the change, not from the dice or the machine.
settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# `nox -s model` throws other dice, for longer, and says with which seed.
settings.register_profile(
    "long",
    settings.get_profile("ci"),
    derandomize=False,
    max_examples=int(os.environ.get("AMPLITUDE_ASYNC_EXAMPLES", "100")),
)
# Cut off in the middle, an example looks to Hypothesis like one that does not repeat.
EXAMPLES_TIMEOUT = 600

# Without the extra, these files could not even be imported.
collect_ignore = [] if find_spec("typer") else ["cli"]


@pytest.hookimpl(trylast=True)  # when Hypothesis has marked its own
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Mark tests of the command line, and give those of many examples their time."""
    for item in items:
        if item.path.is_relative_to(CLI_TESTS):
            item.add_marker("cli")
        if (
            item.get_closest_marker("hypothesis")
            and config.getoption("timeout") is None
        ):
            item.add_marker(pytest.mark.timeout(EXAMPLES_TIMEOUT))


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
