"""The handle a verb returns, and the ledger that finds it when the outcome is known.

An event that nobody asks about costs a place on a page and no future: handles point at
a page of the ledger, never the other way round.
"""

import asyncio
import contextvars
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Protocol

from amplitude_async.delivery.outcome import DeliveryResult, Outcome
from amplitude_async.storage.base import Record

__all__ = ["CombinedDelivery", "Delivery", "Ledger", "Page", "Principal", "whole_pages"]

_PAGE_BITS = 8
_PAGE_MASK = (1 << _PAGE_BITS) - 1
_OPEN = attrgetter("open")


def whole_pages(last_id: int) -> int:
    """Round an id up to the last one of its page."""
    return last_id | _PAGE_MASK


class Principal(Protocol):
    """The destination on whose behalf a handle speaks."""

    @property
    def name(self) -> str:
        """Name of the destination."""

    def decode(self, body: bytes) -> Any:
        """Rebuild an event from its encoded bytes."""

    def hasten(self) -> None:
        """Bring the next flush forward: somebody waits."""


class Page:
    """Outcomes of up to 256 neighbouring events."""

    __slots__ = ("_first", "listeners", "open", "places", "rest")

    def __init__(self) -> None:
        # When it came while an event is undecided, and then its outcome: as one event
        # keeps all of its page, a page has to be small however much was on it.
        self.places: list[float | Outcome | None] = [None] * (1 << _PAGE_BITS)
        # Dicts, not lists: of many who wait for one event, each may leave at any time.
        self.listeners: dict[int, dict[Callable[[], None], None]] = {}
        self.open = 0
        # All before it are decided: whoever looks again begins here.
        self._first = 0
        self.rest: Outcome | None = None
        """The outcome of all events that have none of their own."""

    @property
    def oldest(self) -> float:
        """When the first undecided event came; infinity where none is."""
        for index in range(self._first, 1 << _PAGE_BITS):
            place = self.places[index]
            if isinstance(place, float):
                return place
            if place is not None and index == self._first:
                # Not counted up: another thread may look at the same time.
                self._first = index + 1
        return math.inf

    def outcome_of(self, index: int) -> Outcome | None:
        """Give the outcome of an event, or None while it is undecided."""
        place = self.places[index]
        return place if isinstance(place, Outcome) else self.rest

    def settle_rest(self, outcome: Outcome) -> None:
        """Give all events that have none of their own the same outcome."""
        self.rest = outcome
        waiting, self.listeners = self.listeners, {}
        for listeners in waiting.values():
            for listener in listeners:
                listener()


class Ledger:
    """Finds the page of an event by its id; forgets pages that are decided."""

    def __init__(self) -> None:
        # In the order of their numbers, so that the oldest event is on the first.
        self._pages: dict[int, Page] = {}
        self.others = 0
        """Events of other processes that were settled: no handle was given out."""

    def enter(self, record_id: int, now: float) -> Page:
        """Open an entry for an event; returns the page its handle will watch.

        Args:
            record_id: the number of the event.
            now: when it came, on the clock that does not jump.
        """
        page = self._pages.get(record_id >> _PAGE_BITS)
        if page is None:
            page = self._open(record_id >> _PAGE_BITS)
        # Every event comes by here twice: a page's own verb would cost it a call.
        page.open += 1
        page.places[record_id & _PAGE_MASK] = now
        return page

    def _open(self, number: int) -> Page:
        pages = self._pages
        late = bool(pages) and number < next(reversed(pages))
        page = pages[number] = Page()
        if late:  # an append that ended behind that of a later event
            self._pages = dict(sorted(pages.items()))
        return page

    @property
    def undecided(self) -> int:
        """Events that came in and have no outcome."""
        # A list first, in one go: another thread may ask while pages come and go.
        return sum(map(_OPEN, list(self._pages.values())))

    def oldest_age(self, now: float) -> float | None:
        """Say how long the oldest of them has waited; None where there is none.

        It is asked for in each snapshot, and there may be thousands at once: of every
        caller who waits in a flush.
        """
        for page in self._pages.values():
            return max(now - page.oldest, 0.0)
        return None

    def settle(self, record_id: int, outcome: Outcome) -> None:
        """Write an outcome down and tell whoever listens."""
        page = self._pages.get(record_id >> _PAGE_BITS)
        if page is None:
            self.others += 1  # from its spool: no handle was ever given out
            return
        index = record_id & _PAGE_MASK
        page.places[index] = outcome
        page.open -= 1
        if not page.open:
            # Handles keep the page alive as long as somebody can still ask.
            del self._pages[record_id >> _PAGE_BITS]
        if page.listeners:
            for listener in page.listeners.pop(index, ()):
                listener()

    def settle_rest(self, outcome: Outcome) -> None:
        """Give all events that are undecided the same outcome."""
        pages, self._pages = self._pages, {}
        for page in pages.values():
            page.settle_rest(outcome)


class Delivery:
    """A handle on one accepted event; await it for the ``DeliveryResult``.

    Awaiting brings the next flush forward; cancelling the wait never cancels the event.
    """

    __slots__ = ("_page", "_principal", "_record", "_result")

    at_door: ClassVar[bool] = False
    """True where the event was decided before it came in, so that nobody waited."""

    def __init__(
        self, principal: Principal, record: Record | None, page: Page | None
    ) -> None:
        self._principal = principal
        self._record = record
        self._page = page
        self._result: DeliveryResult | None = None

    @classmethod
    def settled(
        cls, principal: Principal, source: object, insert_id: str, outcome: Outcome
    ) -> "Delivery":
        """Build the handle of an event whose fate was decided at the door."""
        result = _result_of(principal, source, insert_id, outcome)
        return _DecidedDelivery(principal, result)

    @property
    def insert_id(self) -> str:
        """The vendor's deduplication key of the event."""
        if self._record is not None:
            return self._record.insert_id
        return self._result.insert_id if self._result is not None else ""

    @property
    def done(self) -> bool:
        """True once the event has its final outcome."""
        return self.result is not None

    @property
    def result(self) -> DeliveryResult | None:
        """The final result, or None while the event is undecided.

        Any thread may ask.
        """
        # Looked at once: the loop's thread may take it away meanwhile.
        page = self._page
        if self._result is None and page is not None:
            outcome = page.outcome_of(self._index)
            record = self._record
            if outcome is not None and record is not None:
                self._result = _result_of(
                    self._principal, record.body, record.insert_id, outcome
                )
                self._page = None
        return self._result

    @property
    def _index(self) -> int:
        return self._record.id & _PAGE_MASK if self._record is not None else 0

    def add_done_callback(self, callback: Callable[["Delivery"], object]) -> None:
        """Call ``callback(self)`` on the loop once the event is decided.

        Called soon where it already is. Errors go to the loop's exception handler.
        """
        loop = asyncio.get_running_loop()
        # The caller's, as a future would have it, and not that of who settles.
        context = contextvars.copy_context()

        def call() -> None:
            # The client may have moved on from a loop that was closed.
            if not loop.is_closed():
                loop.call_soon(callback, self, context=context)

        self.listen(call)

    def __await__(self) -> Generator[Any, None, DeliveryResult]:
        """Wait for the final outcome."""
        return self._wait().__await__()

    async def _wait(self) -> DeliveryResult:
        result = self.result
        while result is None:
            self._principal.hasten()
            waiter = asyncio.get_running_loop().create_future()

            def wake(waiter: "asyncio.Future[None]" = waiter) -> None:
                # Nobody wakes on a loop that was closed before its tasks had ended.
                if not waiter.done() and not waiter.get_loop().is_closed():
                    waiter.set_result(None)

            self.listen(wake)
            try:
                await waiter
            finally:
                self.forget(wake)
            result = self.result
        return result

    def listen(self, listener: Callable[[], None]) -> None:
        """Call back without an argument as soon as the event is decided."""
        if self.done or self._page is None:
            listener()
        else:
            self._page.listeners.setdefault(self._index, {})[listener] = None

    def forget(self, listener: Callable[[], None]) -> None:
        """Call somebody back no more who waits no longer."""
        page, index = self._page, self._index
        if page is not None and index in page.listeners:
            page.listeners[index].pop(listener, None)
            if not page.listeners[index]:
                del page.listeners[index]

    def __repr__(self) -> str:
        result = self.result
        state = repr(result) if result else "pending"
        return f"<Delivery {self.insert_id} {state}>"


class _DecidedDelivery(Delivery):
    """The handle of an event that came no further than the door."""

    # A class and not a member: a handle that waits should not weigh more for it.
    __slots__ = ()

    at_door = True

    def __init__(self, principal: Principal, result: DeliveryResult) -> None:
        super().__init__(principal, None, None)
        self._result = result


def _result_of(
    principal: Principal, source: object, insert_id: str, outcome: Outcome
) -> DeliveryResult:
    return DeliveryResult(
        outcome,
        source,
        insert_id=insert_id,
        destination=principal.name,
        decode=principal.decode,
    )


class CombinedDelivery(Delivery):
    """One handle on several events that were one to the caller.

    Its result is the first that is not delivered, or else the last of them.
    """

    __slots__ = ("_parts",)

    def __init__(self, principal: Principal, parts: Sequence[Delivery]) -> None:
        super().__init__(principal, None, None)
        self._parts = tuple(parts)

    @property
    def insert_id(self) -> str:
        """The deduplication key of the first part."""
        return self._parts[0].insert_id

    @property
    def result(self) -> DeliveryResult | None:
        """The final result, or None while one of the events is undecided."""
        results = [part.result for part in self._parts]
        found = [result for result in results if result is not None]
        if len(found) < len(results):
            return None
        return next((result for result in found if not result.ok), found[-1])

    def listen(self, listener: Callable[[], None]) -> None:
        """Call back without an argument as soon as every part is decided."""
        for part in self._parts:
            if not part.done:
                # Ask again when this one is decided: others may still be open.
                part.listen(_Again(self, listener))
                return
        listener()

    def forget(self, listener: Callable[[], None]) -> None:
        """Call somebody back no more who waits no longer."""
        for part in self._parts:
            part.forget(_Again(self, listener))


@dataclass(frozen=True)
class _Again:
    """Asks a handle again on behalf of somebody; equal to another that does."""

    delivery: Delivery
    listener: Callable[[], None]

    def __call__(self) -> None:
        self.delivery.listen(self.listener)
