"""Sends the lines of an input, and keeps track of each."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from amplitude_async.cli.send.checkpoint import Checkpoint, CheckpointFile
from amplitude_async.cli.send.lines import LineError, Lines
from amplitude_async.cli.send.rejections import Rejections
from amplitude_async.cli.send.senders import Sender
from amplitude_async.cli.send.source import Batches, Raw, Reader
from amplitude_async.cli.send.window import Fate, Line, Told, Window
from amplitude_async.cli.stopping import INCOMPLETE, Stop, stop_on_signals

__all__ = ["Job", "Run"]

TICK: Final = 0.2
SAVE_EVERY: Final = 1.0
LAST_SECONDS: Final = 5.0
_SLICE: Final = 0.01
_TURNS: Final = 10
"""Looks at the oldest lines, between two at all of them."""


@dataclass(frozen=True)
class Job:
    """What is to be done with one input."""

    lines: Lines
    rejections: Rejections
    begun: Checkpoint
    """How far an earlier run came."""
    file: CheckpointFile | None = None
    new_id: Callable[[Raw], str | None] = lambda _: None
    """Makes the insert_id of a line that has none."""
    rate: float | None = None
    """Most events a second."""
    patience: float = 60.0
    """Seconds without an outcome after which the run is of no use."""


class Run:
    """One input on its way: what is known of it, and when to write that down."""

    def __init__(self, job: Job, stop: Stop) -> None:
        self.job = job
        self.stop = stop
        self.position = 0
        """How many bytes of the input were read."""
        self.taken = 0
        """Events that were taken in by this run."""
        self.trouble = ""
        """Why nothing is taken at the moment."""
        self._sender: Sender | None = None
        self._is_read = False
        self._saved = job.begun
        self.window = Window(job.begun.line, self._look, self._tell)

    def checkpoint(self) -> Checkpoint:
        """Say how far it is, earlier runs included."""
        counts, begun, last = self.window.counts, self.job.begun, self.window.last
        return begun.moved(
            line=self.window.line,
            last=begun.last if last is None else _digest_of(last),
            delivered=begun.delivered + counts[Fate.DELIVERED],
            rejected=begun.rejected + counts[Fate.REJECTED],
            blank=begun.blank + counts[Fate.BLANK],
            complete=self._is_complete,
        )

    @property
    def _is_complete(self) -> bool:
        return self._is_read and not self.window.open and not self.stop.asked.is_set()

    async def send(
        self, batches: Batches, sender: Sender, show: Callable[["Run"], None]
    ) -> None:
        """Send every line, or as many as there is time for.

        Args:
            batches: the lines, read in a thread of its own.
            sender: where they go.
            show: called a few times a second.

        Raises:
            ValueError: the input is not what the command line or the checkpoint says.
            OSError: it cannot be read, or the checkpoint cannot be written.
            EOFError: a packed file ends too early.
        """
        reader = Reader(batches)
        self._sender = sender
        await sender.start()
        with stop_on_signals(self.stop):
            feeding = asyncio.create_task(self._feed_all(reader, sender))
            watching = asyncio.create_task(self._watch(sender, show))
            stopping = asyncio.create_task(self.stop.asked.wait())
            tasks = {feeding, watching, stopping}
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                reader.close()
                for task in tasks:
                    task.cancel()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                await sender.close(LAST_SECONDS)
                self.window.sweep_all()
                await self._save()
        for result in found:
            if isinstance(result, Exception):
                raise result
        show(self)

    # Lines ---------------------------------------------------------------------

    async def _feed_all(self, reader: Reader, sender: Sender) -> None:
        pace, window, number = _Pace(self.job.rate), self.window, 0
        async with aclosing(reader.lists()) as lists:
            async for batch in lists:
                for raw in batch:
                    if raw.number <= self.job.begun.line:
                        self._skip(raw)
                        continue
                    if window.is_full:
                        await _room(window)
                    await self._feed(raw, sender, pace)
                self.position, number = batch[-1].position, batch[-1].number
                window.sweep()
                # Lines that hold no event suspend nowhere.
                await asyncio.sleep(0)
        if number < self.job.begun.line:
            raise ValueError(_SHORTER)
        self._is_read = True
        sender.hasten()
        await _drained(window)

    def _skip(self, raw: Raw) -> None:
        self.job.lines.skip(raw)
        begun = self.job.begun
        if raw.number == begun.line and _digest_of(raw) != begun.last:
            msg = (
                f"line {raw.number} is not the one that the checkpoint tells of: the "
                "input has changed; --restart sends all of it"
            )
            raise ValueError(msg)

    async def _feed(self, raw: Raw, sender: Sender, pace: "_Pace") -> None:
        line = self.window.take(raw)
        try:
            fields = self.job.lines.fields(raw)
            if fields is None:
                self.window.settle(line, _BLANK)
                return
            if pace.rate:
                await pace.wait()
            await sender.send(line, fields, self.job.new_id(raw))
        except LineError as error:
            self.window.settle(line, Told(Fate.REJECTED, str(error)))
            return
        self.taken += 1

    def _look(self, line: Line) -> Told | None:
        return None if self._sender is None else self._sender.told(line)

    def _tell(self, line: Line, told: Told) -> None:
        if told.fate is Fate.REJECTED:
            self.job.rejections.add(line.raw, told.reason, told.code)

    # Now and then --------------------------------------------------------------

    async def _watch(self, sender: Sender, show: Callable[["Run"], None]) -> None:
        loop = asyncio.get_running_loop()
        saved = moved = loop.time()
        settled, patience = 0, self.job.patience
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            self.trouble = sender.trouble
            self.window.sweep_all()
            if self.window.settled != settled or not self.window.open:
                settled, moved = self.window.settled, now
            elif now - moved > patience:
                why = self.trouble or "the server gives no answer"
                text = f"nothing was taken for {patience:g} s: {why}"
                self.stop.ask(text, INCOMPLETE)
            if now - saved >= SAVE_EVERY:
                await self._save()
                saved = now
            show(self)

    async def _save(self) -> None:
        """Write down how far it is."""
        now, file = self.checkpoint(), self.job.file
        if file is not None and now != self._saved:
            # What is passed must be in the file of rejections before.
            self.job.rejections.flush()
            await asyncio.to_thread(file.write, now)
            self._saved = now


_BLANK: Final = Told(Fate.BLANK)
_SHORTER: Final = (
    "the input ends before the line that the checkpoint tells of: it has changed; "
    "--restart sends all of it"
)


def _digest_of(raw: Raw) -> str:
    """Tell a line from others, without telling what is in it."""
    return hashlib.blake2b(raw.text, digest_size=16, person=b"last").hexdigest()


async def _room(window: Window) -> None:
    """Wait until there is room for a line.

    By looking now and then: to be told of each event would cost as much as to send it.
    """
    turn = 0
    window.sweep()
    while window.is_full:
        turn += 1
        if not turn % _TURNS:
            window.sweep_all()
        await asyncio.sleep(_SLICE)
        window.sweep()


async def _drained(window: Window) -> None:
    window.sweep()
    while window.open:
        await asyncio.sleep(_SLICE)
        window.sweep()


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
