"""Storing a chunk: asked again under its id until there is an answer, or time is up."""

import asyncio
from typing import Final

from amplitude_async.exceptions import (
    LogError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.fleet.log import Chunk
from amplitude_async.fleet.nats.api import (
    ATTEMPT,
    CERTAIN,
    LIMIT,
    NOT_FOUND,
    PAUSE,
    Api,
    ApiError,
    failure,
)
from amplitude_async.fleet.nats.plan import Plan
from amplitude_async.fleet.nats.wire import Wire

__all__ = ["Publisher"]

BRIEF: Final = 1.0


class Publisher:
    """Publishes chunks of one project.

    Args:
        wire: the connection.
        plan: names the stream.
    """

    def __init__(self, wire: Wire, plan: Plan) -> None:
        self._wire = wire
        self._plan = plan

    async def publish(self, chunk: Chunk) -> None:
        """Store a chunk.

        Raises:
            LogError: as ``Log.publish`` says.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LIMIT
        doubtful = False
        while True:
            try:
                await self._attempt(chunk, min(ATTEMPT, deadline - loop.time()))
                return
            except CERTAIN as error:
                if doubtful:
                    raise _in_doubt(error) from None
                raise
            except LogUnreachableError as error:
                trouble: LogError = error
            except LogError as error:
                trouble = error
                doubtful = doubtful or not isinstance(error, ApiError)
            if self._wire.closed or loop.time() + PAUSE >= deadline:
                break
            await asyncio.sleep(PAUSE)
        if doubtful:
            raise _in_doubt(trouble)
        if not self._wire.closed:
            await self._explain()
        raise LogUnreachableError(f"nothing was stored within {LIMIT:g} s: {trouble}")

    async def _attempt(self, chunk: Chunk, timeout: float) -> None:
        headers = {
            "Nats-Msg-Id": chunk.id,
            "Nats-Expected-Stream": self._plan.stream,
            "Ax-Events": str(chunk.events),
        }
        subject = self._plan.subject(chunk.place)
        answer = await self._wire.request(subject, chunk.data, headers, timeout=timeout)
        error = failure(answer.json)
        if error is None:
            return
        if isinstance(error, ApiError) and not error.transient:
            raise LogRefusedError(f"{self._plan.stream}: {error}")
        raise error

    async def _explain(self) -> None:
        """Nobody listens: say so, where that is because it was never set up."""
        stream = self._plan.stream
        try:
            await Api(self._wire).call(f"STREAM.INFO.{stream}", limit=BRIEF)
        except ApiError as error:
            if error.code in NOT_FOUND:
                msg = f"there is no stream {stream}: run `amplitude-async relay setup`"
                raise LogRefusedError(msg) from None
        except LogError:
            return  # there is no better explanation than the one we have


def _in_doubt(error: LogError) -> LogError:
    return LogError(f"it is not known whether the chunk was stored: {error}")
