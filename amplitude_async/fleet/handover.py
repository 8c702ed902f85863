"""The way of one client to a log: cut by partition, published until it is answered.

A chunk whose publish ended without a clear answer is frozen: it may be in the log, and
is published again, under its id and with the same events, before any later event of its
partition. What the engine does with these events meanwhile changes nothing about it.
"""

import asyncio
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from amplitude_async.delivery.answer import describe_fault
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.endpoint import Response, excerpt
from amplitude_async.delivery.tasks import is_theirs, within
from amplitude_async.exceptions import (
    AmplitudeError,
    ChunkTooLargeError,
    ConfigurationError,
    LogFullError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.fleet.codec import chunk_id, encode, partition_of
from amplitude_async.fleet.log import Chunk, Log, Place
from amplitude_async.storage.base import Record

__all__ = ["LogHandover"]

# A publish that has not ended by then may be in the log or not.
PATIENCE: Final = 10.0
# Nothing is lost where a log is not closed: who shuts down waits no longer for it.
CLOSE_PATIENCE: Final = 3.0
BOOT_BYTES: Final = 8
# So many lanes are published at the same time.
AT_ONCE: Final = 16
# What stands round a body, its ids mostly, is no more than a third of it as a rule.
SHARE_OF_BODIES: Final = 0.75

_NOT_STORED: Final = (
    ChunkTooLargeError,
    LogFullError,
    LogRefusedError,
    LogUnreachableError,
)


@dataclass(slots=True, eq=False)
class _Parcel:
    """A chunk, and which of the client's events are in it."""

    chunk: Chunk
    ids: frozenset[int]
    frozen: bool = False
    """True while it is in doubt."""
    stored: bool = False
    """True once the log has it for sure."""


class LogHandover:
    """Hands the events of one client's engine over to a log.

    Args:
        log: takes them.
        destination: whose events they are: ``"amplitude"`` or ``"mparticle"``.
    """

    def __init__(self, log: Log, destination: str) -> None:
        self._log = log
        self._destination = destination
        self.max_event_bytes = log.max_event_bytes
        """Most bytes of one event's body."""
        self.max_bytes = int(log.max_chunk_bytes * SHARE_OF_BODIES)
        """Most bytes of the bodies of a request together."""
        self._reset()

    def _reset(self) -> None:
        """Begin as nobody that ever published."""
        self._pid = os.getpid()
        self._boot = secrets.token_hex(BOOT_BYTES)
        self._partitions = 0
        self._frozen: dict[int, _Parcel] = {}
        self._known: set[int] = set()
        self._out: set[_Parcel] = set()
        self._failed = False
        self._in_transactions = count(1)

    def __repr__(self) -> str:
        return (
            f"<LogHandover {self._destination} to {self._log!r}: "
            f"{len(self._frozen)} events in doubt>"
        )

    def fingerprint(self) -> str:
        """Name the log without a secret."""
        return self._log.fingerprint()

    async def open(self) -> Sequence[str]:
        """Connect and check the log, where that was not done; safe to repeat.

        Returns:
            What weakens the log's promise, in words; nothing where it was open.

        Raises:
            ConfigurationError: it is not set up, or a setting breaks its promise.
            LogError: it does not answer.
        """
        self._notice_fork()
        if self._partitions:
            await self._log.open()
            return ()
        settings = await self._log.enter()
        # Two may have come here at once: it was entered once.
        if self._partitions:
            await self._log.leave()
        self._partitions = settings.partitions
        return settings.warnings

    async def close(self) -> None:
        """Close the log where no other client or relay has it open.

        Raises:
            TimeoutError: that takes too long.
        """
        if not self._partitions:
            return
        self._partitions = 0
        await within(CLOSE_PATIENCE, LoopClock(), self._log.leave())

    def abandon(self) -> None:
        """Forget that the log is open: it was so for a parent, or on a closed loop.

        Its connections are the log's matter: another client may have it open here.
        """
        if self._pid != os.getpid():
            self._reset()
            return
        # On another loop the same events go on: what is known of them stays known, and
        # what was being published when the old one was closed may be in the log.
        self._partitions = 0
        for parcel in self._out:
            self._freeze(parcel)
        self._out = set()

    def _notice_fork(self) -> None:
        """Begin anew in a child: its events have the numbers that others had before."""
        if self._pid != os.getpid():
            self.abandon()

    # Handing over ------------------------------------------------------------

    async def hand_over(self, records: Sequence[Record]) -> Response:
        """Give events to the log; raises for no fault of the log's.

        Returns:
            Status 200 where the log has all of them; else 413, 403, 507 (it is full) or
            0, with words.
        """
        self._notice_fork()
        try:
            # A log that is not reached may have been closed by somebody else as well.
            if not self._partitions or self._failed:
                async with asyncio.timeout(PATIENCE):
                    await self.open()
        except BaseException as error:  # a log may raise anything
            if not is_theirs(error):
                raise
            return _answer(error)
        lanes: dict[int, list[Record]] = {}
        for record in records:
            if record.id not in self._known:
                number = partition_of(record.identity, self._partitions)
                lanes.setdefault(number, []).append(record)
        if len(lanes) == 1:
            [(number, lane)] = lanes.items()
            answers = [await self._publish_lane(number, lane)]
        else:
            answers = await self._publish_lanes(lanes)
        failed = next((one for one in answers if one.status != 200), None)
        self._failed = failed is not None
        return self._taken(records) if failed is None else failed

    async def _publish_lanes(self, lanes: dict[int, list[Record]]) -> list[Response]:
        """Publish several lanes, a few at once: to begin with all would hold the loop.

        Where that takes long, none is begun any more.
        """
        waiting, answers = iter(lanes.items()), []
        deadline = asyncio.get_running_loop().time() + PATIENCE

        async def work() -> None:
            for number, lane in waiting:
                if asyncio.get_running_loop().time() > deadline:
                    answers.append(_answer(TimeoutError()))
                    return
                answers.append(await self._publish_among(number, lane))

        await asyncio.gather(*(work() for _ in range(min(len(lanes), AT_ONCE))))
        return answers

    async def _publish_among(self, number: int, records: list[Record]) -> Response:
        """Publish one lane of several: what goes well is not handed over twice.

        Though others fail, or whoever waits for all of them is cancelled.
        """
        answer = await self._publish_lane(number, records)
        if answer.status == _TAKEN.status:
            self._known.update([record.id for record in records])
        return answer

    async def _publish_lane(self, number: int, records: list[Record]) -> Response:
        """Publish what is in doubt, and then what is new, of one partition."""
        doubtful = dict.fromkeys(
            self._frozen[record.id] for record in records if record.id in self._frozen
        )
        for parcel in doubtful:
            answer = await self._publish(parcel)
            if answer.status != 200:
                return answer
        fresh = [record for record in records if record.id not in self._known]
        if not fresh:
            return _TAKEN
        return await self._publish(self._parcel(number, fresh))

    def _parcel(self, number: int, records: list[Record]) -> _Parcel:
        data = encode(records)
        place = Place(self._destination, number)
        chunk = Chunk(chunk_id(self._boot, records), place, data, len(records))
        return _Parcel(chunk, frozenset(record.id for record in records))

    async def _publish(self, parcel: _Parcel) -> Response:
        out = self._out
        out.add(parcel)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._log.publish(parcel.chunk)
        except ChunkTooLargeError as error:
            # Nor will it ever be taken as it is, in doubt or not: it has to be cut.
            self._forget(parcel)
            return _answer(error)
        except _NOT_STORED as error:
            # Of a frozen one that is no news: an earlier attempt may have stored it.
            return _answer(error)
        except BaseException as error:  # a log may raise anything
            self._freeze(parcel)
            if not is_theirs(error):
                raise
            return _answer(error, refuses=False)
        finally:
            out.discard(parcel)
        self._thaw(parcel)
        return _TAKEN

    def _freeze(self, parcel: _Parcel) -> None:
        # Another request may have published it meanwhile, and heard that it is there.
        if not parcel.frozen and not parcel.stored:
            parcel.frozen = True
            self._frozen.update(dict.fromkeys(parcel.ids, parcel))

    def _thaw(self, parcel: _Parcel) -> None:
        """The log has it: its events are handed over, whoever asks for them next."""
        parcel.stored = True
        if parcel.frozen:
            # Others have come to an end meanwhile: nobody will ask for them.
            self._known |= parcel.ids & self._frozen.keys()
            self._forget(parcel)

    def _forget(self, parcel: _Parcel) -> None:
        """Take a chunk out of doubt."""
        if parcel.frozen:
            parcel.frozen = False
            for number in parcel.ids:
                self._frozen.pop(number, None)

    def _taken(self, records: Sequence[Record]) -> Response:
        """Say that the log has events; nobody asks for these again."""
        if self._known:
            self._known.difference_update([record.id for record in records])
        return _TAKEN

    def ended(self, records: Sequence[Record]) -> None:
        """Forget what is known of events that came to an end, whichever it is."""
        if self._known or self._frozen:
            for record in records:
                self._known.discard(record.id)
                self._frozen.pop(record.id, None)

    async def hand_over_in(self, connection: Any, record: Record) -> None:
        """Put an event into the log within a transaction of the caller's.

        Raises:
            ConfigurationError: the log or the connection is of another kind.
            LogError: the log does not take it.
        """
        publish_in = getattr(self._log, "publish_in", None)
        if publish_in is None:
            msg = (
                f"via= needs a log in a database, and {type(self._log).__name__} is "
                "none: use PostgresLog, or track without via="
            )
            raise ConfigurationError(msg)
        self._notice_fork()
        if not self._partitions:
            await self.open()
        number = partition_of(record.identity, self._partitions)
        name = f"{self._boot}.via{next(self._in_transactions)}"
        place = Place(self._destination, number)
        await publish_in(connection, Chunk(name, place, encode([record]), 1))


def _answer(error: BaseException, *, refuses: bool = True) -> Response:
    """Say what an error of the log means, as a server would say it.

    Args:
        refuses: False where it may be that it has what it was given.
    """
    text = excerpt(str(error))
    if type(error) is TimeoutError:
        text = f"no answer within {PATIENCE:g} s"
    elif not isinstance(error, AmplitudeError):
        text = describe_fault(error)
    match error:
        case ChunkTooLargeError():
            status = 413
        case LogRefusedError() | ConfigurationError() if refuses:
            status = 403
        case LogFullError():
            status = 507
        case _:
            status = 0
    return Response(status, error=f"the log: {text}", sent=False)


_TAKEN: Final = Response(200)
