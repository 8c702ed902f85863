"""Prints what arrives at an emulator of this process: events, and requests if asked."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from amplitude_async.cli.tail.entries import as_line, as_text
from amplitude_async.cli.terminal import printable
from amplitude_async.emulator import Emulator, EmulatorStats, ReceivedRequest
from amplitude_async.emulator.entries import request_row
from amplitude_async.emulator.news import NOTHING_SEEN, News

__all__ = ["Allowance", "Ticker", "describe_request", "describe_stats"]

_BURST: Final = 1_000
_PER_SECOND: Final = 500.0
_LONGEST: Final = 300


class Allowance:
    """How many lines may be printed now: nobody reads a flood, and it costs time.

    Args:
        burst: so many at once after a quiet time.
        per_second: so many more each second.
    """

    def __init__(
        self, burst: int = _BURST, per_second: float = _PER_SECOND, now: float = 0.0
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._at = now

    def left(self, now: float) -> int:
        """Return how many lines may be printed."""
        more = max(0.0, now - self._at) * self._per_second
        self._left, self._at = min(self._burst, self._left + more), now
        return int(self._left)

    def spend(self, lines: int) -> None:
        """Note that so many were printed."""
        self._left -= lines


class Ticker:
    """Prints each event of an emulator once, with what became of it.

    Args:
        emulator: it may run in a thread of its own.
        console: where to.
        requests: tell of each request as well, and not only of those without events.
        as_json: print lines of JSON.
        now: seconds that never go back.
    """

    def __init__(
        self,
        emulator: Emulator,
        console: Console,
        *,
        requests: bool = False,
        as_json: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emulator = emulator
        self._console = console
        self._all_requests = requests
        self._as_json = as_json
        self._now = now
        self._allowance = Allowance(now=now())
        self._mark = NOTHING_SEEN

    def print_news(self) -> None:
        """Print what came since the last call, or say how much there was."""
        news = self._emulator.news(self._mark, self._allowance.left(self._now()))
        self._mark = news.mark
        requests = [one for one in news.requests if self._is_told(one)]
        self._allowance.spend(len(news.entries) + len(requests))
        self._say_what_is_left_out(news)
        for one in _in_order(news.entries, requests):
            if isinstance(one, ReceivedRequest):
                self._print_request(one)
            elif self._as_json:
                self._print(as_line(one))
            else:
                self._print(as_text(one, self._width))

    def print_end(self, stats: EmulatorStats) -> None:
        """Print what is left to tell, and a summary."""
        self.print_news()
        if self._as_json:
            self._print(json.dumps({"stats": asdict(stats)}))
        else:
            self._print(describe_stats(stats))

    @property
    def _width(self) -> int | None:
        # In a file or a pipe nothing has to fit.
        return self._console.width if self._console.is_terminal else None

    def _is_told(self, request: ReceivedRequest) -> bool:
        """Say whether it is shown: one that went wrong with no event to tell of it."""
        if self._all_requests:
            return True
        return not (request.events or request.batches or 200 <= request.status < 300)

    def _say_what_is_left_out(self, news: News) -> None:
        events = news.events_left_out
        requests = news.requests_left_out if self._all_requests else 0
        if not (events or requests):
            return
        if self._as_json:
            told = {"events": events, "requests": requests}
            self._print(json.dumps({"left_out": told}))
            return
        counts = [_count(events, "event")] if events else []
        counts += [_count(requests, "request")] if requests else []
        text = f"... {' and '.join(counts)} came too fast to show: see the page"
        self._print(Text(text, style="yellow"))

    def _print_request(self, request: ReceivedRequest) -> None:
        if self._as_json:
            self._print(json.dumps(request_row(request)))
        else:
            self._print(describe_request(request))

    def _print(self, line: Text | str) -> None:
        self._console.print(
            line, soft_wrap=True, highlight=False, markup=False, emoji=False
        )


def describe_request(request: ReceivedRequest) -> Text:
    """Return one line about a request, without its contents."""
    line = Text(_time(request.received_at), style="dim")
    good = 200 <= request.status < 300
    # 0 stands for a connection that a fault has closed.
    status = str(request.status or "---")
    line.append(f"  HTTP {status}", style="green" if good else "red")
    line.append(f"  {printable(request.path)}")
    line.append(f"  {_contents(request)}, {_count(request.body_bytes, 'byte')}")
    if request.fault:
        line.append(f"  fault: {printable(request.fault)}", style="yellow")
    if request.note:
        line.append(f"  {printable(request.note, _LONGEST)}", style="yellow")
    return line


def describe_stats(stats: EmulatorStats) -> str:
    """Return the summary of a run."""
    parts = [f"{_count(stats.events_ingested, 'event')} stored"]
    if stats.batches_received:
        parts.append(f"{_count(stats.batches_ingested, 'batch')} stored")
    rejected = stats.events_rejected + stats.batches_rejected
    local = stats.local_rejected + stats.local_dropped
    parts.append(_count(stats.duplicates + stats.batch_duplicates, "duplicate"))
    parts.append(f"{rejected:,} rejected")
    parts += [f"{local:,} rejected or dropped locally"] if local else []
    forgotten = stats.events_forgotten + stats.batches_forgotten
    parts += [f"{forgotten:,} no longer kept"] if forgotten else []
    answers = ", ".join(
        f"{count:,} x {status or 'dropped'}"
        for status, count in sorted(stats.by_status.items())
    )
    told = f" ({answers})" if answers else ""
    return f"{', '.join(parts)}; {_count(stats.requests, 'request')}{told}."


def _in_order(
    entries: list[dict[str, Any]], requests: list[ReceivedRequest]
) -> Iterator[dict[str, Any] | ReceivedRequest]:
    """Put each request before what came in it."""
    waiting = deque(requests)
    for one in entries:
        while waiting and waiting[0].number <= (one["request"] or 0):
            yield waiting.popleft()
        yield one
    yield from waiting


def _contents(request: ReceivedRequest) -> str:
    """Say how many events came, in how many batches where there are some."""
    if not request.batches:
        return _count(len(request.events), "event")
    held = [batch.get("events") for batch in request.batches]
    events = sum(len(one) for one in held if isinstance(one, list))
    return f"{_count(len(held), 'batch')} with {_count(events, 'event')}"


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}"


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"{number:,} {what}"
    return f"{number:,} {what}{'es' if what.endswith('ch') else 's'}"
