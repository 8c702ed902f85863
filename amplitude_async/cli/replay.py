"""Replays purchases as HTTP requests, many customers at a time, each in order."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import aiohttp

from amplitude_async.cli.purchase_service import PURCHASE_JSON
from amplitude_async.cli.purchases import Purchase, histories

__all__ = ["Replay", "replay"]

_CONCURRENCY = 32
_REQUEST_TIMEOUT = 30.0
_JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Replay:
    """How the requests of a replay went."""

    answered: int = 0
    """Requests answered with 2xx."""

    failed: int = 0
    """Requests answered otherwise, or not at all."""

    first_failure: str | None = None
    """What became of the first one that failed."""

    def fail(self, reason: str) -> None:
        """Count a failed request."""
        self.failed += 1
        self.first_failure = self.first_failure or reason


async def replay(
    purchases: Sequence[Purchase], url: str, advance: Callable[[], None]
) -> Replay:
    """Post each purchase once.

    A customer's next purchase is posted when the last one was answered, as it would
    be in life: so their order is known, and must be found at the server.

    Args:
        purchases: what to post, in the order of the log.
        url: where to.
        advance: called after each request.
    """
    result = Replay()
    # All workers share one iterator: who is free takes the next customer.
    customers = iter(histories(purchases).values())
    connector = aiohttp.TCPConnector(limit=_CONCURRENCY)
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as workers,
    ):
        for _ in range(_CONCURRENCY):
            worker = _Worker(session, url, result, advance)
            workers.create_task(worker.post_all(customers))
    return result


@dataclass(frozen=True, slots=True)
class _Worker:
    session: aiohttp.ClientSession
    url: str
    result: Replay
    advance: Callable[[], None]

    async def post_all(self, customers: Iterator[list[Purchase]]) -> None:
        for history in customers:
            for purchase in history:
                await self._post(purchase)
                self.advance()

    async def _post(self, purchase: Purchase) -> None:
        body = PURCHASE_JSON.dump_json(purchase)
        try:
            async with self.session.post(self.url, data=body, headers=_JSON) as answer:
                if answer.ok:
                    self.result.answered += 1
                else:
                    self.result.fail(f"the service answered {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.result.fail(f"no answer from the service: {error!r}")
