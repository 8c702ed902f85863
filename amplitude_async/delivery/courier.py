"""Who carries a request's events away: to a server over HTTP, or to a log."""

from collections.abc import Sequence
from typing import Any, Protocol

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.endpoint import Endpoint, Response
from amplitude_async.delivery.observing import Answered, Observers
from amplitude_async.delivery.sender import Post
from amplitude_async.delivery.stats import Counters
from amplitude_async.redaction import Body
from amplitude_async.storage.base import Record

__all__ = ["Handover", "HttpCourier", "LogCourier"]


class Handover(Protocol):
    """The way to a log: given to a client, it stands in the place of its server.

    One that was cancelled or answered with an error may be asked again with the same
    events, cut in another way: what the log has is not handed over twice.
    """

    max_bytes: int
    """Most bytes of the bodies of a request together."""
    max_event_bytes: int
    """Most bytes of one event's body."""

    async def open(self) -> Sequence[str]:
        """Connect, where that is to be done; safe to repeat.

        Returns:
            What weakens the log's promise, in words.

        Raises:
            ConfigurationError: the log is not set up, or a setting breaks its promise.
            LogError: it does not answer.
        """

    async def hand_over(self, records: Sequence[Record]) -> Response:
        """Give events to the log; raises for no fault of the log's.

        Returns:
            Status 200 where the log has all of them; else what is wrong. ``sent`` is
            False where it may be asked again with others.
        """

    async def hand_over_in(self, connection: Any, record: Record) -> None:
        """Put an event into the log within a transaction of the caller's.

        Raises:
            ConfigurationError: the log or the connection is of another kind.
            LogError: the log does not take it; the transaction is the caller's matter.
        """

    def ended(self, records: Sequence[Record]) -> None:
        """Hear of events that came to an end, whichever: nobody asks with them again.

        It may not wait, and raises nothing.
        """

    def fingerprint(self) -> str:
        """Name the log without a secret, for spools to tell them apart."""

    async def close(self) -> None:
        """Let go what ``open`` made; safe to repeat."""

    def abandon(self) -> None:
        """Forget connections without touching them: another process owns them."""


class HttpCourier:
    """Joins encoded events to a body and posts it."""

    def __init__(self, endpoint: Endpoint, post: Post, clock: Clock) -> None:
        self._endpoint = endpoint
        self._post = post
        self._clock = clock

    async def carry(self, records: Sequence[Record]) -> tuple[Response, int]:
        """Send events to the server; returns its answer, and the bytes of the body."""
        endpoint = self._endpoint
        bodies = [record.body for record in records]
        body = Body(endpoint.frame(bodies, self._clock.wall()))
        return await self._post.send(endpoint.url, body, endpoint.headers)


class LogCourier:
    """Hands encoded events over to a log, and counts as a request does."""

    def __init__(
        self,
        handover: Handover,
        *,
        observers: Observers,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self._handover = handover
        self._observers = observers
        self._clock = clock
        self._counters = counters

    async def carry(self, records: Sequence[Record]) -> tuple[Response, int]:
        """Give events to the log; returns what it says, and the bytes of the events."""
        size = sum([len(record.body) for record in records])
        self._counters.request(size)
        started = self._clock.now()
        entered = self._observers.enter()
        try:
            response = await self._handover.hand_over(records)
        finally:
            self._observers.leave(entered)
        if self._observers:
            status = 0 if response.error is not None else response.status
            took = self._clock.now() - started
            self._observers.answered(Answered(status, took, size))
        return response, size
