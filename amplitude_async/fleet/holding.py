"""Keeps one claim: reads ahead, acknowledges what is decided, renews the lease."""

import asyncio
import math
from collections.abc import Awaitable
from typing import Final

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.reporting import Reporter, in_words
from amplitude_async.delivery.tasks import pause
from amplitude_async.exceptions import DamagedChunkError, UnknownSchemaError
from amplitude_async.fleet.asking import NO_ANSWER, asked
from amplitude_async.fleet.feed import Feed
from amplitude_async.fleet.lease import Lease
from amplitude_async.fleet.log import Claim, StoredChunk
from amplitude_async.fleet.tenure import Tenure

__all__ = ["Holding"]

READ_BYTES: Final = 2 * 1024 * 1024
# A lone event waits no longer for its relay, where nothing tells it.
POLL: Final = 0.25
# The engine makes room in its own time; nobody tells.
LOOK_AGAIN: Final = 0.02
TRY_AGAIN: Final = 0.2
RENEWALS_IN_LEASE: Final = 3
# A place that is left is kept no longer for what the log does not take of us.
DEBT_PATIENCE: Final = 3.0
# Nor for what is noted at the end: without that some come twice, and that is all.
LAST_NOTE: Final = 2.0
# What a log is asked has failed if it takes longer.
PATIENCE: Final = 10.0


class Holding:
    """One claim of a relay and the tasks that keep it.

    Args:
        claim: the place.
        tenure: what of it is in hand.
        lease: how long it is ours.
        feed: takes what is read.
    """

    def __init__(
        self,
        claim: Claim,
        tenure: Tenure,
        lease: Lease,
        *,
        feed: Feed,
        clock: Clock,
        reporter: Reporter,
    ) -> None:
        self.tenure = tenure
        """What of the place is in hand."""
        self._claim = claim
        self._lease = lease
        self._feed = feed
        self._clock = clock
        self._reporter = reporter
        self._left = asyncio.Event()
        self._noted = claim.progress
        self.puzzled = False
        """True where a chunk is written in a form that this version does not know."""
        self.failed = False
        """True where a fault of ours ended it."""
        self.released = False
        """True once the log knows that others may have the place."""

    def __repr__(self) -> str:
        return f"<Holding {self.tenure!r}>"

    async def run(self) -> None:
        """Keep the claim until it is lost, or left and nothing of it is in hand."""
        try:
            self._feed.begin(self.tenure, self._noted)
        except ValueError as error:
            words = "what the holder of %s before left cannot be read: %s"
            place = self.tenure.place
            self._reporter.warning("log_progress", words, place, in_words(error))
        self.tenure.stirred.set()
        try:
            await self._keep()
        except Exception as error:  # noqa: BLE001 - a fault of ours, logged
            self._reporter.error(
                "relay", "keeping %s failed", self.tenure.place, traceback=error
            )
            self.failed = True
            self._lose()
            await self._acknowledge()
        finally:
            self.tenure.lose()
            self._feed.end(self.tenure)

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._read()), group.create_task(self._renew())]
            await self._acknowledge()
            for task in tasks:
                task.cancel()
        if not self.tenure.lost:
            await self._note_progress(LAST_NOTE)
            self.released = await self._ask("release", self._claim.release())

    def _tell_lost(self) -> None:
        place = self.tenure.place
        self._reporter.warning("log_lost", "the claim of %s is lost", place)

    def leave(self) -> None:
        """Begin nothing any more: another relay is to have the place."""
        self.tenure.leave()
        self._stir()

    def give_up(self) -> None:
        """Leave undone what was begun as well, but for requests under way."""
        self.tenure.give_up()
        self._stir()

    def _lose(self) -> None:
        self._tell_lost()
        self.tenure.lose()
        self._stir()

    def _stir(self) -> None:
        self._left.set()
        self._feed.host.look_again()

    # Reading -----------------------------------------------------------------

    async def _read(self) -> None:
        while self.tenure.owes and not self._left.is_set():
            # What an earlier claim left is acknowledged first, so as not to come again.
            await self._pause(LOOK_AGAIN)
        while not self._left.is_set():
            if not self._feed.wants_more:
                await self._pause(LOOK_AGAIN)
                continue
            chunks = await self._next_chunks()
            if chunks is None:
                await self._pause(TRY_AGAIN)
                continue
            for chunk in chunks:
                await self._take(chunk)
            size = sum([len(chunk.data) for chunk in chunks])
            self._note_idle(idle=size < READ_BYTES // 2)
            if not chunks:
                self._feed.read_all(self.tenure)
                if not await self._ask("wait", self._claim.wait(POLL)):
                    await self._pause(TRY_AGAIN)

    async def _next_chunks(self) -> list[StoredChunk] | None:
        """Read on; None where the log does not answer."""
        try:
            reading = self._claim.read(READ_BYTES)
            return await asked(PATIENCE, self._clock, reading)
        except NO_ANSWER as error:
            self._reporter.warning("log_read", "%s", in_words(error))
            return None

    def _note_idle(self, *, idle: bool) -> None:
        if self.tenure.note_idle(idle=idle):
            self._feed.host.look_again()  # what waits for company has none to wait for

    async def _take(self, chunk: StoredChunk) -> None:
        if self._left.is_set():
            return  # it is the next holder's
        try:
            self._feed.push(self.tenure, chunk)
        except UnknownSchemaError as error:
            self.puzzled = True
            self._reporter.error("log_schema", "%s: %s", chunk.id, in_words(error))
            await self._finish()
            self.leave()
        except DamagedChunkError as error:
            self._reporter.error("log_damaged", "%s: %s", chunk.id, in_words(error))
            await self._set_aside(chunk, in_words(error))
        await asyncio.sleep(0)  # to decode a thousand events takes milliseconds

    async def _finish(self) -> None:
        """Let what was read be decided, while the place is kept."""
        self._note_idle(idle=True)
        while self.tenure.batches and not self._left.is_set():
            await self._pause(LOOK_AGAIN)

    async def _set_aside(self, chunk: StoredChunk, message: str) -> None:
        """Keep a damaged chunk for people, before it is acknowledged."""
        place = self.tenure.place
        while not self._left.is_set():
            if await self._ask("bury", self._feed.bury_raw(place, chunk, message)):
                self.tenure.finished(chunk.position, chunk.id)
                return
            await self._pause(TRY_AGAIN)

    async def _pause(self, seconds: float) -> None:
        """Let time pass, but no longer than the place is kept."""
        await pause(seconds, self._clock, events=[self._left])

    # Keeping -----------------------------------------------------------------

    async def _renew(self) -> None:
        interval = patience = self._lease.length / RENEWALS_IN_LEASE
        while not self.tenure.lost:
            await pause(interval, self._clock)
            moment = self._lease.moment()
            try:
                kept = await asked(patience, self._clock, self._claim.renew())
            except NO_ANSWER as error:
                self._reporter.warning("log_renew", "%s", in_words(error))
                interval = min(TRY_AGAIN, patience)
                if self._lease.valid:
                    continue
                kept = False
            if not kept or not self._lease.valid:
                self._lose()
                return
            self._lease.begin(moment)
            noted_from = self._clock.now()
            await self._note_progress(patience / 2)
            # The next renewal comes no later for what was noted.
            interval = patience - (self._clock.now() - noted_from)

    async def _note_progress(self, patience: float) -> None:
        """Tell the log what the next holder need not send, where that has changed."""
        progress = self._feed.progress_of(self.tenure)
        if progress == self._noted:
            return
        try:
            noting = self._claim.note_progress(progress)
            await asked(patience, self._clock, noting)
        except NO_ANSWER as error:
            # It is told again with the next renewal; until then some may come twice.
            self._reporter.warning("log_progress", "%s", in_words(error))
        else:
            self._noted = progress

    async def _acknowledge(self) -> None:
        """Acknowledge what is decided, until nothing of the place is in hand.

        Where the log does not take it, as without room for letters, a place that is
        left does not wait for that: its next relay reads those chunks again.
        """
        tenure, finished_at = self.tenure, math.inf
        while True:
            await tenure.stirred.wait()
            tenure.stirred.clear()
            if tenure.lost and not self._left.is_set():
                self._tell_lost()
                self._stir()
            finished = self._left.is_set() and not tenure.batches
            if finished:
                finished_at = min(finished_at, self._clock.now())
            if not await self._pay():
                late = self._clock.now() - finished_at > DEBT_PATIENCE
                if not tenure.batches and (tenure.lost or late):
                    return  # the next claim of ours acknowledges them
                await pause(TRY_AGAIN, self._clock)
                tenure.stirred.set()
                continue
            done = self._left.is_set() and not tenure.batches and not tenure.owes
            if done:
                return

    async def _pay(self) -> bool:
        """Keep rejected events, and then forget chunks; False where that failed.

        Letters for which there is no room keep no chunk back but their own.
        """
        tenure = self.tenure
        _, letters = tenure.debts
        kept = not letters or await self._ask("bury", self._feed.keep(letters))
        if letters and kept:
            tenure.paid(letters=len(letters))
        positions = tenure.payable
        if positions:
            if not await self._ask("acknowledge", self._claim.acknowledge(positions)):
                return False
            tenure.paid(positions)
        return kept

    async def _ask(self, what: str, answer: Awaitable[object]) -> bool:
        """Ask the log for something; False where it does not answer."""
        try:
            await asked(PATIENCE, self._clock, answer)
        except NO_ANSWER as error:
            self._reporter.warning(f"log_{what}", "%s: %s", what, in_words(error))
            return False
        return True
