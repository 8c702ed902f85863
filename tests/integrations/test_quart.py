"""The ASGI parts in Quart, whose application never sees the server's state."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("quart")
pytest.importorskip("hypercorn")

__all__: list[str] = []


async def test_the_example_delivers_before_it_stops(
    sign_up_at: Callable[..., Any],
) -> None:
    """Under hypercorn: events and requests are at the server with their users."""
    ended = await sign_up_at("quart_service.py")

    assert (ended.exit_code, "Traceback" in ended.log) == (0, False)
    assert ended.requests == {("/users/<user_id>", 200)}
