"""A terminal of one width for every command."""

import pytest

__all__ = ["terminal_width"]


@pytest.fixture(autouse=True)
def terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no table depend on the terminal that the tests run in."""
    monkeypatch.setenv("COLUMNS", "100")
