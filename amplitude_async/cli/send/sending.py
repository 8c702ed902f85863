"""Sends the lines of an input, and keeps track of each."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from amplitude_async import (
    Amplitude,
    Config,
    DeliveryResult,
    DeliveryStatus,
    DropReason,
)
from amplitude_async.amplitude.door import AmplitudeDoor
from amplitude_async.amplitude.endpoint import AmplitudeEndpoint
from amplitude_async.amplitude.events import Event
from amplitude_async.cli.send.checkpoint import Checkpoint, CheckpointFile
from amplitude_async.cli.send.lines import LineError, Lines
from amplitude_async.cli.send.rejections import Rejections
from amplitude_async.cli.send.source import Batches, Raw, Reader
from amplitude_async.cli.send.window import Fate, Line, Window
from amplitude_async.cli.stopping import INCOMPLETE, Stop, stop_on_signals
from amplitude_async.client.destination import Reduced, Refusal
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.deciding.health import Health
from amplitude_async.delivery.reporting import Reporter

__all__ = [
    "Checker",
    "ClientSender",
    "Job",
    "Sender",
    "Told",
    "digest_of",
    "send_lines",
]

TICK: Final = 0.2
SAVE_EVERY: Final = 1.0
LAST_SECONDS: Final = 5.0
_SLICE: Final = 0.01

_GIVEN_UP: Final = frozenset({DropReason.RETRIES})
"""Ends that the event itself has brought about: a later run would meet them again."""


class Told(NamedTuple):
    """What became of one event."""

    fate: Fate
    reason: str = ""
    code: int = 0


class Sender(Protocol):
    """Takes events and says what became of each."""

    async def send(self, event: Event, tell: Callable[[Told], None]) -> None:
        """Take an event; `tell` is called once with what became of it."""

    async def finish(self) -> None:
        """Wait until everything is decided."""

    async def close(self, timeout: float) -> None:
        """End, and give up what is undecided by then."""

    @property
    def trouble(self) -> str:
        """Why nothing is taken at the moment; no text where all is well."""


class ClientSender:
    """Sends with the client of this package."""

    def __init__(self, config: Config, stop: Stop) -> None:
        self._client = Amplitude(config)
        self._stop = stop

    async def send(self, event: Event, tell: Callable[[Told], None]) -> None:
        """Take an event; `tell` is called once with what became of it."""
        delivery = await self._client.track(event)
        delivery.add_done_callback(partial(self._done, tell))

    async def send_one(
        self, event: Event, timeout: float
    ) -> tuple[Told, DeliveryResult | None]:
        """Send an event and wait for what becomes of it, or for so many seconds."""
        delivery = await self._client.track(event)
        try:
            result = await asyncio.wait_for(delivery, timeout)
        except TimeoutError:
            why = self.trouble or "the server gives no answer"
            return Told(Fate.LEFT, f"not within {timeout:g} s: {why}"), None
        told = self._told(result)
        return told._replace(code=result.code), result

    def _done(self, tell: Callable[[Told], None], delivery: Any) -> None:
        told = self._told(delivery.result)
        if told.fate is Fate.LEFT:
            self._stop.ask(told.reason, INCOMPLETE)
        tell(told)

    def _told(self, result: DeliveryResult) -> Told:
        if result.status is DeliveryStatus.DELIVERED:
            return _DELIVERED
        refused = result.code and self._client.health is Health.REFUSED
        if result.status is DeliveryStatus.REJECTED and not refused:
            return Told(Fate.REJECTED, result.message, result.code)
        if result.reason in _GIVEN_UP:
            return Told(Fate.REJECTED, f"given up: {result.message}", result.code)
        return Told(Fate.LEFT, result.message, result.code)

    async def finish(self) -> None:
        """Wait until everything is decided."""
        while self._client.stats.pending:
            await self._client.flush(None)
            await asyncio.sleep(_SLICE)

    async def close(self, timeout: float) -> None:
        """Shut the client down."""
        await self._client.shutdown(timeout)

    @property
    def trouble(self) -> str:
        """Why nothing is taken at the moment."""
        if self._client.health is Health.HEALTHY:
            return ""
        return self._client.stats.last_error or "the server takes nothing"


_DELIVERED: Final = Told(Fate.DELIVERED)


class Checker:
    """Looks at events as the client would, and sends nothing."""

    trouble = ""

    def __init__(self, config: Config) -> None:
        endpoint = AmplitudeEndpoint(config)
        reporter = Reporter(config.logger, LoopClock(), endpoint.name, config.redactor)
        room = endpoint.max_bytes - endpoint.frame_bytes
        self._door = AmplitudeDoor(config, room, reporter)
        self._seen = 0
        self.body = b""
        """The last event that is good, as it would go on the wire."""

    async def send(self, event: Event, tell: Callable[[Told], None]) -> None:
        """Look at an event."""
        self._seen += 1
        if not self._seen % 100:
            await asyncio.sleep(0)
        tell(self.look(event))

    def look(self, event: Event) -> Told:
        """Say whether the client would take an event."""
        found = self._door.admit(event, self._seen, time.time())
        if isinstance(found, Refusal):
            return Told(Fate.REJECTED, found.message)
        self.body = (found.record if isinstance(found, Reduced) else found).body
        return _DELIVERED

    async def finish(self) -> None:
        """Nothing is undecided."""

    async def close(self, timeout: float) -> None:
        """Nothing is open."""


class Job:
    """One input on its way: what is known of it, and when to write that down."""

    def __init__(
        self,
        lines: Lines,
        rejections: Rejections,
        checkpoint: Checkpoint,
        file: CheckpointFile | None = None,
        *,
        rate: float | None = None,
        patience: float = 300.0,
    ) -> None:
        self.lines = lines
        self.rejections = rejections
        self.file = file
        self.rate = rate
        self.patience = patience
        self.begun = checkpoint
        self.window = Window(checkpoint.line)
        self.position = 0
        self.taken = 0
        """Events that were taken in by this run."""
        self.stop = Stop()
        self.is_read = False
        self.trouble = ""
        self._saved = checkpoint

    def checkpoint(self) -> Checkpoint:
        """Say how far it is, earlier runs included."""
        counts, begun = self.window.counts, self.begun
        last = self.window.last
        return begun.moved(
            line=self.window.line,
            last=begun.last if last is None else digest_of(last),
            delivered=begun.delivered + counts[Fate.DELIVERED],
            rejected=begun.rejected + counts[Fate.REJECTED],
            blank=begun.blank + counts[Fate.BLANK],
            complete=self.is_complete,
        )

    @property
    def is_complete(self) -> bool:
        """True where every line has been read and has its outcome."""
        return self.is_read and not self.window.open and not self.stop.asked.is_set()

    async def save(self) -> None:
        """Write down how far it is."""
        now = self.checkpoint()
        if self.file is not None and now != self._saved:
            # What is passed must be in the file of rejections before.
            self.rejections.flush()
            await asyncio.to_thread(self.file.write, now)
            self._saved = now

    def told(self, line: Line, told: Told) -> None:
        """Write down what became of a line."""
        if told.fate is Fate.REJECTED:
            self.rejections.add(line.raw, told.reason, told.code)
        self.window.settle(line, told.fate)


def digest_of(raw: Raw) -> str:
    """Tell a line from others, without telling what is in it."""
    return hashlib.blake2b(raw.text, digest_size=16, person=b"last").hexdigest()


async def send_lines(
    job: Job, batches: Batches, sender: Sender, show: Callable[[Job], None]
) -> None:
    """Send every line, or as many as there is time for.

    Args:
        job: what to do, and what comes of it.
        batches: the lines, read in a thread of its own.
        sender: where they go.
        show: called a few times a second.

    Raises:
        ValueError: the input is not what the command line or the checkpoint says.
        OSError: it cannot be read, or the checkpoint cannot be written.
        EOFError: a packed file ends too early.
    """
    reader = Reader(batches)
    with stop_on_signals(job.stop):
        feeding = asyncio.create_task(_feed_all(job, reader, sender))
        watching = asyncio.create_task(_watch(job, sender, show))
        stopping = asyncio.create_task(job.stop.asked.wait())
        tasks = {feeding, watching, stopping}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.close()
            for task in tasks:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            await sender.close(LAST_SECONDS)
            # What became of the last ones is told in the loop's next turn.
            await asyncio.sleep(0)
            await job.save()
    for result in found:
        if isinstance(result, Exception):
            raise result
    show(job)


async def _feed_all(job: Job, reader: Reader, sender: Sender) -> None:
    pace = _Pace(job.rate)
    async with aclosing(reader.lists()) as lists:
        async for batch in lists:
            for raw in batch:
                if raw.number <= job.begun.line:
                    _skip(job, raw)
                elif job.window.is_full:
                    await job.window.room()
                    await _feed(job, raw, sender, pace)
                else:
                    await _feed(job, raw, sender, pace)
            job.position = batch[-1].position
            # Lines that hold no event suspend nowhere.
            await asyncio.sleep(0)
    if job.window.line < job.begun.line:
        raise ValueError(_SHORTER)
    job.is_read = True
    await sender.finish()
    await job.window.drained()


def _skip(job: Job, raw: Raw) -> None:
    job.lines.skip(raw)
    if raw.number == job.begun.line and digest_of(raw) != job.begun.last:
        msg = (
            f"line {raw.number} is not the one that the checkpoint tells of: the input "
            "has changed; --restart sends all of it"
        )
        raise ValueError(msg)


_SHORTER: Final = (
    "the input ends before the line that the checkpoint tells of: it has changed; "
    "--restart sends all of it"
)


async def _feed(job: Job, raw: Raw, sender: Sender, pace: "_Pace") -> None:
    line = job.window.take(raw)
    try:
        event = job.lines.event(raw)
    except LineError as error:
        job.told(line, Told(Fate.REJECTED, str(error)))
        return
    if event is None:
        job.window.settle(line, Fate.BLANK)
        return
    if pace.rate:
        await pace.wait()
    job.taken += 1
    await sender.send(event, partial(job.told, line))


class _Pace:
    """Lets so many a second pass."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for the next one's turn."""
        assert self.rate  # noqa: S101 - asked before
        now = asyncio.get_running_loop().time()
        # What was missed is not made up for: the rate holds at every moment.
        self._next = max(self._next, now - _SLICE) + 1 / self.rate
        if self._next > now + _SLICE:
            await asyncio.sleep(self._next - now)


async def _watch(job: Job, sender: Sender, show: Callable[[Job], None]) -> None:
    loop = asyncio.get_running_loop()
    saved = moved = loop.time()
    settled = 0
    while True:
        await asyncio.sleep(TICK)
        now = loop.time()
        job.trouble = sender.trouble
        if job.window.settled != settled or not job.window.open:
            settled, moved = job.window.settled, now
        elif now - moved > job.patience:
            why = job.trouble or "the server gives no answer"
            job.stop.ask(f"nothing was taken for {job.patience:g} s: {why}", INCOMPLETE)
        if now - saved >= SAVE_EVERY:
            await job.save()
            saved = now
        show(job)
