"""The page of an emulator of this process: where it is, and a browser that shows it."""

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from amplitude_async.cli.terminal import refusal
from amplitude_async.emulator import Emulator

__all__ = ["choose_port", "has_display", "open_page", "start_nearby"]

_USUAL: Final = 8080
_NEXT: Final = 20


def start_nearby(stack: ExitStack, port: int | None, *, keep: int) -> Emulator:
    """Start an emulator in a thread of its own, which ends with the stack.

    Args:
        stack: ends it.
        port: None for the usual one or the next that is free.
        keep: events it keeps.

    Raises:
        typer.Exit: with 2, where the port is taken.
    """
    for one in choose_port(port):
        try:
            return stack.enter_context(Emulator(port=one, keep=keep))
        except OSError as error:
            fault = error.strerror or str(error)
    raise refusal(
        f"cannot listen on 127.0.0.1 port {port} ({fault}): choose another --port "
        "(0 takes any free one)"
    )


def choose_port(port: int | None) -> list[int]:
    """Return the ports to try, in order."""
    return [*range(_USUAL, _USUAL + _NEXT), 0] if port is None else [port]


def has_display(environment: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Say whether a browser would have where to show itself."""
    if platform in {"win32", "darwin"}:
        # Over the network it would open before somebody else, or nobody.
        return not environment.get("SSH_CONNECTION")
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def open_page(url: str) -> None:
    """Show a page in the user's browser, if there is a display; wait for nothing."""
    if has_display(os.environ):
        threading.Thread(
            target=webbrowser.open, args=(url,), name="browser", daemon=True
        ).start()
