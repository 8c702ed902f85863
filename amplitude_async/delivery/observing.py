"""Those who watch a destination from outside, and a fence round them."""

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from amplitude_async.delivery.outcome import Outcome, Settlement
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.tasks import is_theirs
from amplitude_async.storage.base import Record

__all__ = ["Answered", "Observer", "Observers", "Witness"]

SHARE = 200


@dataclass(frozen=True, slots=True)
class Answered:
    """One request and how it ended, without a word of what was in it."""

    status: int
    """HTTP status; 0 where no answer came."""
    duration: float
    """Seconds from the first attempt to connect to the end of the answer."""
    size: int
    """Bytes of the body, after compression."""

    @property
    def ok(self) -> bool:
        """True where the server took the request."""
        return 200 <= self.status < 300


class Observer:
    """Hears of each request of a client; what it does not override does nothing.

    It is called a few times for each request and never for each event, on the client's
    loop and in an empty context, or for a direct upload in that of its caller. It may
    not wait. Whatever it raises is logged and changes nothing, but for what ends the
    interpreter, such as ``SystemExit``.
    """

    def sending(self) -> AbstractContextManager[object]:
        """Give what is to be entered around a request, as a context to set."""
        return nullcontext()

    def answered(self, request: Answered) -> None:
        """Hear how a request ended."""

    def delivered(self, ages: Sequence[float]) -> None:
        """Hear how old events were when they were delivered, in seconds.

        Those of one request come in shares of at most 200.
        """


class Witness(Protocol):
    """Hears how events end; it may not wait, and harms nobody."""

    def begin(self) -> bool:
        """Say whether it wants to hear, where a destination starts."""

    def note(self, source: object, outcome: Outcome) -> None:
        """Hear how an event, or its record, ended."""

    async def end(self) -> None:
        """Finish, soon."""


class Observers:
    """All that observe one destination; their faults are their own."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._witness: Witness | None = None
        self._wants = False
        self._follower: Callable[[Sequence[Record]], None] | None = None
        self.hear_ends = False
        """True while somebody wants to hear of each event: all that one has to ask."""
        # Never changed, only replaced: whoever is called may add and end others.
        self._all: dict[object, Observer] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Let somebody observe; returns what ends that, which may be called again."""
        # An object of its own: one that observes twice may end each by itself.
        place = object()
        self._all = {**self._all, place: observer}

        def end() -> None:
            self._all = {p: one for p, one in self._all.items() if p is not place}

        return end

    # The ends of events -----------------------------------------------------

    def call(self, witness: Witness) -> None:
        """Have a witness, who may want to hear of events from the start on."""
        self._witness = witness

    def follow(self, follower: Callable[[Sequence[Record]], None]) -> None:
        """Have a follower: ours, told of each event that came in and has ended."""
        self._follower = follower
        self.hear_ends = True

    def begin(self) -> None:
        """Ask the witness whether it wants to hear."""
        if self._witness is not None:
            self._wants = self._witness.begin()
            self.hear_ends = self._wants or self._follower is not None

    def ended(self, source: object, outcome: Outcome) -> None:
        """Tell the witness how an event, or its record, ended."""
        if self._witness is not None and self._wants:
            self._witness.note(source, outcome)

    def tell(self, sources: Iterable[object], outcome: Outcome) -> None:
        """Tell the witness, where it wants to hear, of what no account knows."""
        if self._wants:
            for source in sources:
                self.ended(source, outcome)

    def all_ended(self, settlements: Sequence[Settlement]) -> None:
        """Tell the follower which events ended, and the witness how."""
        if self._follower is not None:
            self._follower([record for record, _ in settlements])
        if self._wants:
            for record, outcome in settlements:
                self.ended(record, outcome)

    async def finish(self) -> None:
        """Let the witness finish what it has heard; it hears no more."""
        hears, self._wants = self._wants, False
        self.hear_ends = self._follower is not None
        if hears and self._witness is not None:
            await self._witness.end()

    # Requests ----------------------------------------------------------------

    def enter(self) -> list[AbstractContextManager[object]]:
        """Enter what each of them gives for a request that begins."""
        entered: list[AbstractContextManager[object]] = []

        def enter(observer: Observer) -> None:
            context = observer.sending()
            context.__enter__()
            entered.append(context)

        self._tell(enter)
        return entered

    def leave(self, entered: list[AbstractContextManager[object]]) -> None:
        """Leave it all, the last first; nobody hears why or changes how it ended."""
        for context in reversed(entered):
            self._fence(partial(context.__exit__, None, None, None))

    def answered(self, request: Answered) -> None:
        """Tell all of them how a request ended."""
        self._tell(lambda observer: observer.answered(request))

    def delivered(self, ages: Sequence[float]) -> None:
        """Tell all of them how old the events of a request were, many in shares."""
        share, rest = ages[:SHARE], ages[SHARE:]
        self._tell(lambda observer: observer.delivered(share))
        if rest:
            # To enter each of 2,000 into a histogram would hold the loop.
            loop, empty = asyncio.get_running_loop(), contextvars.Context()
            loop.call_soon(partial(self.delivered, rest), context=empty)

    def _tell(self, tell: Callable[[Observer], object]) -> None:
        for observer in self._all.values():
            self._fence(partial(tell, observer))

    def _fence(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # user code, fenced
            if not is_theirs(error):
                raise
            self._reporter.error(
                "observer", "an observer raised %r", error, traceback=error
            )

    def __repr__(self) -> str:
        return f"<Observers {len(self._all)}>"
