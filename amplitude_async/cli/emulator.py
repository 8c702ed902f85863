"""Runs the emulator until it is told to stop, and prints what arrives."""

import json
import time

from rich.console import Console

from amplitude_async.cli.news import Ticker
from amplitude_async.cli.stopping import flag_on_signals
from amplitude_async.emulator import Emulator

__all__ = ["serve"]

_POLL_SECONDS = 0.1


def serve(
    emulator: Emulator,
    console: Console,
    *,
    requests: bool = False,
    as_json: bool = False,
) -> None:
    """Run the emulator until SIGINT or SIGTERM; print each event and a summary.

    It answers in a thread of its own: a terminal that is slow, or stopped by Ctrl-S,
    holds up nobody.

    Args:
        emulator: not started.
        console: where to print.
        requests: print each request as well.
        as_json: print lines of JSON.

    Raises:
        OSError: the address cannot be listened on.
    """
    # First the signals: who stops it while it starts ends it as well.
    with flag_on_signals() as stop, emulator:
        if as_json:
            _print_line(console, json.dumps(_addresses(emulator)))
        else:
            _greet(emulator, console)
        ticker = Ticker(emulator, console, requests=requests, as_json=as_json)
        while not stop.is_up:
            time.sleep(_POLL_SECONDS)
            ticker.print_news()
        ticker.print_end(emulator.stats)


def _print_line(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _addresses(emulator: Emulator) -> dict[str, str]:
    return {
        "url": emulator.url,
        "httpapi_url": emulator.httpapi_url,
        "batch_url": emulator.batch_url,
        "mparticle_url": emulator.mparticle_url,
    }


def _greet(emulator: Emulator, console: Console) -> None:
    event = '{"event_type": "Hello", "user_id": "user-1"}'
    body = f'{{"api_key": "any", "events": [{event}]}}'
    for line in (
        f"Emulator listens on {emulator.url} - open it in a browser to watch.",
        f"Send to it: AMPLITUDE_SERVER_URL={emulator.httpapi_url}",
        f"Try it:     curl {emulator.httpapi_url} -d '{body}'",
        "Stop it:    Ctrl-C",
    ):
        _print_line(console, line)
