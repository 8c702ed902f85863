"""A network made of answers that a test writes down."""

import asyncio
import gzip
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.endpoint import Response

__all__ = ["Answer", "ScriptedTransport", "SentRequest"]

Answer = (
    Response | Awaitable[Response] | Callable[[bytes], Response | Awaitable[Response]]
)
"""What a server says: a response, something to await for one, or a function of the
uncompressed request body that gives either."""


@dataclass(frozen=True, slots=True)
class SentRequest:
    """One request as it went out."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    """The body before compression; it holds the key, so no repr shows it."""
    at: float
    """When it went, by the clock."""
    timeout: float
    """Seconds the sender was ready to wait."""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events it carried."""
        events: list[dict[str, Any]] = json.loads(self.body)["events"]
        return events

    @property
    def compressed(self) -> bool:
        """True where it went as gzip."""
        return self.headers.get("Content-Encoding") == "gzip"


class ScriptedTransport:
    """Answers requests from a script and remembers them; opens no socket.

    Args:
        answers: one per request, in order of sending.
        then: what every further request is told; None: that all is well.
        clock: stamps requests, and ends those that hang at their timeout.
    """

    def __init__(
        self,
        answers: Iterable[Answer] = (),
        *,
        then: Response
        | Callable[[bytes], Response | Awaitable[Response]]
        | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._answers = iter(answers)
        self._then = then or Response(200)
        self._clock = clock
        self._hanging = False
        self._stuck: list[asyncio.Future[Response | None]] = []
        self.requests: list[SentRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.closed = False
        self.abandoned = 0

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all requests in order of sending, repetitions included."""
        return [event for request in self.requests for event in request.events]

    def hang(self) -> None:
        """Leave requests without an answer from now on."""
        self._hanging = True

    def release(self) -> None:
        """Answer what hangs, and whatever comes, from the script."""
        self._hanging = False
        stuck, self._stuck = self._stuck, []
        for future in stuck:
            if not future.done():
                future.set_result(None)

    async def send(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> Response:
        """Note the request and give the next answer."""
        plain = headers.get("Content-Encoding") != "gzip"
        content = body if plain else gzip.decompress(body)
        at = self._clock.now() if self._clock is not None else 0.0
        self.requests.append(SentRequest(url, headers, content, at, timeout))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(content, timeout)
        finally:
            self.in_flight -= 1

    async def _answer(self, content: bytes, timeout: float) -> Response:
        if self._hanging:
            late = await self._stall(timeout)
            if late is not None:
                return late
        answer = next(self._answers, self._then)
        if callable(answer):
            answer = answer(content)
        if inspect.isawaitable(answer):
            return await answer
        return answer

    async def _stall(self, timeout: float) -> Response | None:
        future: asyncio.Future[Response | None]
        future = asyncio.get_running_loop().create_future()
        self._stuck.append(future)

        def give_up() -> None:
            if not future.done():
                future.set_result(
                    Response(0, error=f"no complete answer within {timeout:g} s")
                )

        timer = self._clock.call_later(timeout, give_up) if self._clock else None
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        """Note that the owner is done."""
        self.closed = True

    def abandon(self) -> None:
        """Note that the owner left its connections to somebody else."""
        self.abandoned += 1
        self._stuck.clear()

    def __repr__(self) -> str:
        return f"<ScriptedTransport {len(self.requests)} requests>"
