"""Clients of a local server, without the proxies of this machine."""

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["default_options"]


@pytest.fixture
def default_options() -> Callable[[], dict[str, Any]]:
    """Return what gives each client its options."""
    return lambda: {"trust_env": False}
