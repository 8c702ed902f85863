"""Sends the lines of an input, and keeps track of each."""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from amplitude_async.cli.send.checkpoint import Checkpoint, CheckpointFile
from amplitude_async.cli.send.lines import LineError, Lines
from amplitude_async.cli.send.rejections import Rejections
from amplitude_async.cli.send.senders import Sender
from amplitude_async.cli.send.source import Batches, Raw, Reader
from amplitude_async.cli.send.window import Fate, Line, Told, Window
from amplitude_async.cli.stopping import INCOMPLETE, Stop, stop_on_signals

__all__ = ["Job", "digest_of", "send_lines"]

TICK: Final = 0.2
SAVE_EVERY: Final = 1.0
LAST_SECONDS: Final = 5.0
_SLICE: Final = 0.01
_TURNS: Final = 10
"""Looks at the oldest lines, between two at all of them."""


class Job:
    """One input on its way: what is known of it, and when to write that down."""

    def __init__(
        self,
        lines: Lines,
        rejections: Rejections,
        checkpoint: Checkpoint,
        file: CheckpointFile | None = None,
        *,
        new_id: Callable[[Raw], str | None] = lambda _: None,
        rate: float | None = None,
        patience: float = 300.0,
    ) -> None:
        self.lines = lines
        self.rejections = rejections
        self.file = file
        self.new_id = new_id
        self.rate = rate
        self.patience = patience
        self.begun = checkpoint
        self.window = Window(checkpoint.line, self._look, self.told)
        self.sender: Sender | None = None
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

    def _look(self, line: Line) -> Told | None:
        return None if self.sender is None else self.sender.told(line)

    def told(self, line: Line, told: Told) -> None:
        """Write down why a line was not taken."""
        if told.fate is Fate.REJECTED:
            self.rejections.add(line.raw, told.reason, told.code)


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
    job.sender = sender
    await sender.start()
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
            job.window.sweep_all()
            await job.save()
    for result in found:
        if isinstance(result, Exception):
            raise result
    show(job)


async def _feed_all(job: Job, reader: Reader, sender: Sender) -> None:
    pace, window, number = _Pace(job.rate), job.window, 0
    async with aclosing(reader.lists()) as lists:
        async for batch in lists:
            for raw in batch:
                if raw.number <= job.begun.line:
                    _skip(job, raw)
                    continue
                if window.is_full:
                    await _room(window)
                await _feed(job, raw, sender, pace)
            job.position = batch[-1].position
            window.sweep()
            # Lines that hold no event suspend nowhere.
            await asyncio.sleep(0)
            number = batch[-1].number
    if number < job.begun.line:
        raise ValueError(_SHORTER)
    job.is_read = True
    sender.hasten()
    await _drained(window)


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
        fields = job.lines.fields(raw)
        if fields is None:
            job.window.settle(line, _BLANK)
            return
        if pace.rate:
            await pace.wait()
        await sender.send(line, fields, job.new_id(raw))
    except LineError as error:
        job.window.settle(line, Told(Fate.REJECTED, str(error)))
        return
    job.taken += 1


_BLANK: Final = Told(Fate.BLANK)


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
        job.window.sweep_all()
        if job.window.settled != settled or not job.window.open:
            settled, moved = job.window.settled, now
        elif now - moved > job.patience:
            why = job.trouble or "the server gives no answer"
            job.stop.ask(f"nothing was taken for {job.patience:g} s: {why}", INCOMPLETE)
        if now - saved >= SAVE_EVERY:
            await job.save()
            saved = now
        show(job)
