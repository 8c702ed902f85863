"""Replays purchases as HTTP requests, many customers at a time, each in order."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from amplitude_async.cli.demo.purchase_service import KEY_HEADER, PURCHASE_JSON
from amplitude_async.cli.demo.purchases import Purchase, histories

__all__ = ["Replay", "replay", "replay_stubbornly"]

_CONCURRENCY = 32
_REQUEST_TIMEOUT = 30.0
# One death of the service costs each worker one; more is no accident any more.
_MOST_REPEATS = 10 * _CONCURRENCY
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

    repeated: int = 0
    """Requests without an answer that were sent again."""

    def answer(self) -> None:
        """Count a request that was answered well."""
        self.answered += 1

    def repeat(self) -> None:
        """Count a request that has to be sent again."""
        self.repeated += 1

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

    async def address() -> str:
        return url

    result = Replay()
    await _replay(purchases, _Mail(address, result, advance))
    return result


async def replay_stubbornly(
    purchases: Sequence[Purchase],
    address: Callable[[], Awaitable[str]],
    advance: Callable[[], None],
) -> Replay:
    """Post each purchase until it is answered, to a service that may die.

    What got no answer may have been taken or not. So each purchase carries a key of
    its own, and one that was taken twice is still one event.

    Args:
        purchases: what to post, in the order of the log.
        address: waits for the service and returns where it is now.
        advance: called after each purchase that is through.
    """
    result = Replay()
    await _replay(purchases, _Mail(address, result, advance, stubborn=True))
    return result


@dataclass(frozen=True, slots=True)
class _Mail:
    """What all workers share."""

    address: Callable[[], Awaitable[str]]
    result: Replay
    advance: Callable[[], None]
    stubborn: bool = False


async def _replay(purchases: Sequence[Purchase], mail: _Mail) -> None:
    # All workers share one iterator: who is free takes the next customer.
    customers = iter(histories(purchases).values())
    connector = aiohttp.TCPConnector(limit=_CONCURRENCY)
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as workers,
    ):
        for _ in range(_CONCURRENCY):
            workers.create_task(_Worker(session, mail).post_all(customers))


@dataclass(frozen=True, slots=True)
class _Worker:
    session: aiohttp.ClientSession
    mail: _Mail

    async def post_all(self, customers: Iterator[list[Purchase]]) -> None:
        for history in customers:
            for number, purchase in enumerate(history, 1):
                headers = dict(_JSON)
                if self.mail.stubborn:
                    headers[KEY_HEADER] = f"{purchase.customer}-{number}"
                # The address is asked for anew each time: a service that was killed
                # comes back on another port.
                while not await self._post(purchase, headers):
                    self.mail.result.repeat()
                self.mail.advance()

    async def _post(self, purchase: Purchase, headers: Mapping[str, str]) -> bool:
        """Post a purchase; False where it has to be posted again."""
        result = self.mail.result
        url = await self.mail.address()
        body = PURCHASE_JSON.dump_json(purchase)
        try:
            async with self.session.post(url, data=body, headers=headers) as answer:
                if answer.ok:
                    result.answer()
                else:
                    result.fail(f"the service answered {answer.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            if self.mail.stubborn and result.repeated < _MOST_REPEATS:
                return False
            result.fail(f"no answer from the service: {error!r}")
        return True
