"""Waits until a log has an event, as a verb does that is to return only then."""

import asyncio

from amplitude_async.client.destination import EngineDestination
from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.handle import Delivery

__all__ = ["Confirmation"]


class Confirmation:
    """One deadline for all that a verb waits for: room, a storage, and the log.

    Args:
        own: hands over; an outage of its log delays nobody, a hiccup does.
        clock: counts the time.
        timeout: seconds from the verb's call to its return, at most.
    """

    def __init__(self, own: EngineDestination, clock: Clock, timeout: float) -> None:
        self._own = own
        self._clock = clock
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Confirmation within {self._timeout:g} s>"

    async def wait(self, delivery: Delivery, since: float) -> None:
        """Wait until an event has its outcome, or the verb has taken long enough.

        Who gives up waiting stops nothing: the event was accepted.
        """
        left = since + self._timeout - self._clock.now()
        if delivery.done or left <= 0 or self._own.takes_nothing(self._timeout):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            # The client may have moved on from a loop that was closed.
            if not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_result(None)

        timer = self._clock.call_later(left, wake)
        delivery.listen(wake)
        try:
            await waiter
        finally:
            timer.cancel()
            delivery.forget(wake)
