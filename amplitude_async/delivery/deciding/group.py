"""Events that travel together, and the life they lead. Pure.

The life of a group; what is not in the table cannot happen, and raises::

    READY    send     -> OUT       its next piece is with the server
    READY    rest     -> RESTING   it waits for a time: a hold, a back-off
    READY    end      -> OVER      nothing is left to send, or others take it over
    RESTING  wake     -> READY     the time has come
    RESTING  end      -> OVER      purged, shed, or back in the queue
    OUT      answer   -> READY     an answer, or the loss of one
    READY    idle     -> IDLE      a lane whose next events are in the storage only
    IDLE     resume   -> READY     they came
    IDLE     end      -> OVER      the storage has no more of them

A group owns its identities from its first piece to its last: what comes later for one
of them is parked at the group, and goes when the group is over.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from itertools import chain, islice

from amplitude_async.delivery.deciding.attempts import Held
from amplitude_async.storage.base import Record

__all__ = ["Group", "Life"]


class Life(Enum):
    """Where a group stands."""

    READY = "ready"
    OUT = "out"
    RESTING = "resting"
    IDLE = "idle"
    OVER = "over"


_MOVES = {
    (Life.READY, "send"): Life.OUT,
    (Life.READY, "rest"): Life.RESTING,
    (Life.READY, "end"): Life.OVER,
    (Life.RESTING, "wake"): Life.READY,
    (Life.RESTING, "end"): Life.OVER,
    (Life.OUT, "answer"): Life.READY,
    (Life.READY, "idle"): Life.IDLE,
    (Life.IDLE, "resume"): Life.READY,
    (Life.IDLE, "end"): Life.OVER,
}


class Group:
    """Events that travel together, whole or in pieces, one piece at a time.

    Args:
        pieces: a stack; the last piece goes next.
        window: most events in a request of a throttled identity; None for others.
        held: the account of held events, where this is the lane of a throttled
            identity.
    """

    __slots__ = (
        "_held",
        "count",
        "crashes",
        "due",
        "identities",
        "life",
        "parked",
        "pieces",
        "rounds",
        "sent_at",
        "window",
    )

    def __init__(
        self,
        pieces: list[list[Record]],
        window: int | None = None,
        held: Held | None = None,
    ) -> None:
        self.pieces = pieces
        self.window = window
        self.life = Life.READY
        self.identities: list[str] = []
        self.parked: dict[str, list[Record]] = {}
        self.rounds = 0
        """Answers in a row that named single events."""
        self.crashes = 0
        """Times in a row that sending it died of a fault of ours."""
        self.due: float | None = None
        """When it goes on; None unless it rests."""
        self.sent_at = -math.inf
        """When its last piece went out."""
        self.count = 0
        """Its events: in pieces, parked and in flight."""
        self._held = held
        self._grow(sum(map(len, pieces)), chain.from_iterable(pieces))

    def _grow(self, events: int, records: Iterable[Record]) -> None:
        """Count events that came, or went where the number is negative."""
        # The one place where a group's number of events changes.
        self.count += events
        if self._held is not None and events:
            size = sum([len(record.body) for record in records])
            self._held.change(events, size if events > 0 else -size)

    # Its life ----------------------------------------------------------------

    def _move(self, event: str) -> None:
        self.life = _MOVES[self.life, event]

    def send(self, now: float) -> None:
        """Its next piece goes to the server."""
        self._move("send")
        self.sent_at = now

    def answer(self) -> None:
        """Nothing of it is with the server any more."""
        self._move("answer")

    def crash(self) -> int:
        """Sending it died of a fault of ours; returns how often in a row."""
        self.crashes += 1
        return self.crashes

    def survive(self) -> None:
        """An answer came: what died before is forgotten."""
        self.crashes = 0

    def name_some(self) -> int:
        """An answer named single events; returns how many did so in a row."""
        self.rounds += 1
        return self.rounds

    def name_none(self) -> None:
        """An answer named no single event."""
        self.rounds = 0

    def rest(self, due: float) -> None:
        """Wait for a time."""
        self._move("rest")
        self.due = due

    def wake(self) -> None:
        """The time has come."""
        self._move("wake")
        self.due = None

    def idle(self) -> None:
        """Its next events are in the storage only."""
        self._move("idle")

    def resume(self) -> None:
        """They came."""
        self._move("resume")

    def end(self) -> None:
        """It owns nothing any more."""
        self._move("end")
        self.due = None

    @property
    def out(self) -> bool:
        """True while its last piece is with the server."""
        return self.life is Life.OUT

    @property
    def throttled(self) -> bool:
        """True for the lane of one throttled identity."""
        return self.window is not None

    @property
    def goes_on(self) -> bool:
        """True while it has more to send; a lane also sends what is parked at it."""
        return bool(self.pieces) or (self.throttled and any(self.parked.values()))

    # Its events --------------------------------------------------------------

    @property
    def piece(self) -> list[Record]:
        """The piece that goes next, or is out."""
        return self.pieces[-1]

    def take_piece(self) -> list[Record]:
        """Take the piece out that goes next."""
        piece = self.pieces.pop()
        self._grow(-len(piece), piece)
        return piece

    def put_back(self, records: list[Record]) -> None:
        """Let events go next, before all others of this group."""
        if records:
            self.pieces.append(records)
            self._grow(len(records), records)

    def put_first(self, record: Record) -> None:
        """Let an event go before all others of its identity, but for those out."""
        waiting = self.pieces[:-1] if self.out else self.pieces
        if waiting:
            waiting[-1].insert(0, record)
        else:
            self.parked.setdefault(record.identity, []).insert(0, record)
        self._grow(1, (record,))

    @property
    def newest(self) -> Record:
        """The last event that would go; one at least must wait."""
        return self._last_run()[-1]

    def pop_newest(self) -> Record:
        """Take out the last event that would have gone; one at least must wait."""
        record = self._last_run().pop()
        self._grow(-1, (record,))
        return record

    def _last_run(self) -> list[Record]:
        return next(run for run in self._runs(newest_first=True) if run)

    def put_back_halves(self, records: list[Record]) -> None:
        """Let events go next in two pieces, left then right."""
        middle = (len(records) + 1) // 2
        self.put_back(records[middle:])
        self.put_back(records[:middle])

    def cut(self, limit: int, max_bytes: int) -> None:
        """Shorten the piece that goes next to so many events and bytes."""
        piece = self.pieces[-1]
        total = 0
        for index, record in enumerate(piece):
            total += len(record.body) + 1
            if index >= limit or (total > max_bytes and index):
                self.pieces[-1:] = [piece[index:], piece[:index]]
                return

    def park(self, record: Record) -> None:
        """Keep an event until its identity is free again."""
        self.parked.setdefault(record.identity, []).append(record)
        self._grow(1, (record,))

    def line_up(self) -> None:
        """Let what is parked follow the pieces: a lane goes on with its own events."""
        for run in self.parked.values():
            self.pieces.insert(0, run)
        self.parked = {}

    def waiting(self) -> list[Record]:
        """List the events that are not in flight, in order per identity."""
        if len(self.pieces) == 1 and not self.parked and self.life is not Life.OUT:
            return self.pieces[0]  # as in most lanes, and there are thousands of them
        return list(chain.from_iterable(self._runs()))

    def _runs(self, *, newest_first: bool = False) -> Iterator[list[Record]]:
        last = len(self.pieces) - 1 if self.out else len(self.pieces)
        if newest_first:
            yield from reversed(self.parked.values())
            yield from islice(self.pieces, last)
            return
        yield from reversed(self.pieces[:last])
        yield from self.parked.values()

    def remove(self, chosen: Callable[[Record], bool]) -> list[Record]:
        """Take the chosen events out, except those in flight."""
        removed: list[Record] = []
        for run in self._runs():
            found = [record for record in run if chosen(record)]
            if len(found) == len(run):
                run.clear()
            elif found:
                run[:] = [record for record in run if not chosen(record)]
            removed += found
        self._grow(-len(removed), removed)
        return removed

    def clear(self) -> list[Record]:
        """Take out all that is not in flight; it is not looked at one by one."""
        records = self.waiting()
        self.pieces = self.pieces[-1:] if self.life is Life.OUT else []
        self.parked = {}
        self._grow(-len(records), records)
        return records

    def forget_empty_pieces(self) -> None:
        """Drop pieces of which nothing is left."""
        self.pieces = [piece for piece in self.pieces if piece]

    def extract(self, identities: Iterable[str]) -> dict[str, list[Record]]:
        """Take everything of some identities out, in order for each of them."""
        # One pass for all of them: every event of a request may be throttled.
        found: dict[str, list[Record]] = {identity: [] for identity in identities}
        for index in range(len(self.pieces) - 1, -1, -1):
            piece = self.pieces[index]
            self.pieces[index] = [r for r in piece if r.identity not in found]
            for record in piece:
                if record.identity in found:
                    found[record.identity].append(record)
        self.forget_empty_pieces()
        for identity, run in found.items():
            run.extend(self.parked.pop(identity, ()))
        taken = sum(map(len, found.values()))
        self._grow(-taken, chain.from_iterable(found.values()))
        return found

    def unpark(self) -> list[Record]:
        """Take what is parked out, run by run: each identity's events together."""
        back = [record for run in self.parked.values() for record in run]
        self.parked = {}
        self._grow(-len(back), back)
        return back

    def unpack(self) -> list[Record]:
        """Take what is in pieces out, in the order in which it would have gone."""
        records = [record for piece in reversed(self.pieces) for record in piece]
        self.pieces = []
        self._grow(-len(records), records)
        return records

    # Its pace, as the lane of a throttled identity ---------------------------

    def widen(self, most: int) -> None:
        """A request went well: the next may be twice as large."""
        if self.window is not None:
            self.window = min(self.window * 2, most)

    def narrow(self) -> None:
        """Throttled again: the next is half as large."""
        if self.window is not None:
            self.window = max(1, self.window // 2)

    def __repr__(self) -> str:
        sizes = [len(piece) for piece in reversed(self.pieces)]
        lane = f" window={self.window}" if self.throttled else ""
        parked = sum(map(len, self.parked.values()))
        return f"<Group {self.life.value} {sizes} parked={parked}{lane}>"
