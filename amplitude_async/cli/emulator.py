"""Runs the emulator until it is told to stop, and prints what it receives."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from datetime import datetime
from types import FrameType

from rich.console import Console
from rich.text import Text

from amplitude_async.cli.terminal import printable
from amplitude_async.emulator import Emulator, EmulatorStats, ReceivedRequest

__all__ = ["RequestWatch", "describe_request", "describe_stats", "serve"]

_POLL_SECONDS = 0.1


class RequestWatch:
    """Finds the requests that came since it last looked."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._last: ReceivedRequest | None = None

    def news(self) -> list[ReceivedRequest]:
        """Return the new requests, in order."""
        found = self._emulator.requests
        start = len(found)
        # By identity and not by count: a reset starts the counting anew.
        while start and found[start - 1] is not self._last:
            start -= 1
        if found:
            self._last = found[-1]
        return found[start:]


async def serve(emulator: Emulator, console: Console) -> None:
    """Run the emulator until SIGINT or SIGTERM; print each request and a summary.

    Raises:
        OSError: the address cannot be listened on.
    """
    async with emulator:
        with _stop_signals() as stop:
            _greet(emulator, console)
            watch = RequestWatch(emulator)
            while not stop.is_set():
                await _wait(stop, _POLL_SECONDS)
                for request in watch.news():
                    console.print(describe_request(request), soft_wrap=True)
    console.print(describe_stats(emulator.stats), highlight=False, soft_wrap=True)


def describe_request(request: ReceivedRequest) -> Text:
    """Return one line about a request, without its contents."""
    when = datetime.fromtimestamp(request.received_at).astimezone()
    good = 200 <= request.status < 300
    line = Text(f"{when:%H:%M:%S} ")
    # 0 stands for a connection that a fault has closed.
    line.append(f"{request.status or '---'}", style="green" if good else "red")
    line.append(f" {printable(request.path)}")
    line.append(f" {_contents(request)}, {_count(request.body_bytes, 'byte')}")
    if request.fault:
        line.append(f" fault: {printable(request.fault)}", style="yellow")
    if request.note:
        line.append(f" {printable(request.note)}", style="yellow")
    return line


def describe_stats(stats: EmulatorStats) -> str:
    """Return the summary of a run."""
    answers = ", ".join(
        f"{count:,} x {status or 'dropped'}"
        for status, count in sorted(stats.by_status.items())
    )
    stored = [f"{_count(stats.events_ingested, 'event')} stored"]
    if stats.batches_received:
        stored.append(f"{_count(stats.batches_ingested, 'batch')} stored")
    stored.append(_count(stats.duplicates + stats.batch_duplicates, "duplicate"))
    forgotten = stats.events_forgotten + stats.batches_forgotten
    if forgotten:
        stored.append(f"{forgotten:,} no longer kept")
    stored.append(_count(stats.bytes_received, "byte"))
    return (
        f"Stopped after {_count(stats.requests, 'request')} ({answers or 'none'}): "
        f"{', '.join(stored)}."
    )


def _contents(request: ReceivedRequest) -> str:
    """Say how many events came, in how many batches where there are some."""
    if not request.batches:
        return _count(len(request.events), "event")
    held = [batch.get("events") for batch in request.batches]
    events = sum(len(one) for one in held if isinstance(one, list))
    return f"{_count(len(held), 'batch')} with {_count(events, 'event')}"


def _greet(emulator: Emulator, console: Console) -> None:
    event = '{"event_type": "Hello", "user_id": "user-1"}'
    body = f'{{"api_key": "any", "events": [{event}]}}'
    for line in (
        f"Emulator listens on {emulator.url} - open it in a browser to watch.",
        f"Send to it: AMPLITUDE_SERVER_URL={emulator.httpapi_url}",
        f"Try it:     curl {emulator.httpapi_url} -d '{body}'",
        "Stop it:    Ctrl-C",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Turn SIGINT and SIGTERM into an event while the block runs."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.set)

    # signal() and not add_signal_handler(): that one does not exist on Windows.
    before = {
        number: signal.signal(number, on_signal)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"{number:,} {what}"
    return f"{number:,} {what}{'es' if what.endswith('ch') else 's'}"
