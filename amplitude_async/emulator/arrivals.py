"""What a test reads of an emulator, from whichever thread or loop."""

from __future__ import annotations

import asyncio
from typing import Any

from .book import Book
from .judgement import JsonObject
from .news import NOTHING_SEEN, Mark, News, news_of
from .records import EmulatorStats, ReceivedRequest
from .seen import Seen, Taken
from .users import (
    SeenMParticleUser,
    SeenUser,
    picture,
    picture_of_batches,
    unknown_user,
)
from .waiting import Waiters, Wanted

__all__ = ["Arrivals"]


class Arrivals:
    """What has arrived: events, batches, requests, users; and waiting for more.

    Args:
        book: holds the ledger.
        waiters: all who wait.
    """

    def __init__(self, book: Book, waiters: Waiters) -> None:
        self._book = book
        self._waiting = waiters

    @property
    def events(self) -> Taken:
        """The Amplitude events stored, each once, in order of arrival.

        `events(rejected=True)` returns those that were not taken, each with its reason.
        """
        return self._book.ledger().events

    @property
    def batches(self) -> Taken:
        """The mParticle batches stored, each once, in order of arrival.

        `batches(rejected=True)` returns those that were not taken, likewise.
        """
        return self._book.ledger().batches

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests received, in order of being judged."""
        return self._book.ledger().requests

    @property
    def stats(self) -> EmulatorStats:
        """A snapshot of the counters; they count also what is no longer kept."""
        return self._book.ledger().stats

    @property
    def users(self) -> list[str]:
        """The ids for `user`: users, and devices that came without one."""
        return self._book.ledger().users("event")

    @property
    def mparticle_users(self) -> list[str]:
        """The ids for `mparticle_user`: of each user the customer id or the next best.

        After it come email, mpid, and any other identity.
        """
        return self._book.ledger().users("batch")

    def news(self, after: Mark = NOTHING_SEEN, most: int = 1_000) -> News:
        """Return what has come since a mark: what each event came to, and requests.

        Args:
            after: the `mark` of the news before.
            most: so many events, and so many requests, the newest of them.
        """
        return news_of(self._book.ledger(), after, most)

    def user(self, name: str) -> SeenUser:
        """Return what the events kept make of one user, or device.

        Raises:
            UnknownUserError: nothing of it was stored; it is a KeyError.
        """
        ledger = self._book.ledger()
        found = ledger.of_user("event", name)
        if found:
            return picture(name, found)
        rejected = ledger.rejected("event")
        own = [one for one in rejected if name in (one.user_id, one.device_id)]
        raise unknown_user(name, ledger.users("event"), own)

    def mparticle_user(self, name: str) -> SeenMParticleUser:
        """Return what the batches kept make of one user, by any of its identities.

        Raises:
            UnknownUserError: nothing of it was stored; it is a KeyError.
        """
        ledger = self._book.ledger()
        found = ledger.of_user("batch", name)
        if not found:
            raise unknown_user(name, ledger.users("batch"))
        return picture_of_batches(name, found)

    async def wait_for(
        self,
        event_type: str,
        /,
        *,
        timeout: float = 1.0,
        times: int = 1,
        user_id: str | None = None,
        device_id: str | None = None,
        **properties: Any,
    ) -> list[JsonObject]:
        """Wait until so many such Amplitude events are stored, and return them.

        Args:
            event_type: name of the event.
            timeout: seconds to wait at most.
            times: how many of them, those included that are there already.
            user_id: only events of this user.
            device_id: only events of this device.
            **properties: only events with these values in their event properties.

        Raises:
            AssertionError: they did not come in time; it says what came instead.
        """
        wanted = Wanted(event_type, user_id, device_id, properties, times)
        return await self._waiting.wait(wanted, timeout, self._arrived)

    def wait_for_sync(
        self,
        event_type: str,
        /,
        *,
        timeout: float = 1.0,
        times: int = 1,
        user_id: str | None = None,
        device_id: str | None = None,
        **properties: Any,
    ) -> list[JsonObject]:
        """Wait as `wait_for` does, in synchronous code.

        Raises:
            AssertionError: they did not come in time; it says what came instead.
            RuntimeError: a loop runs in this thread, and would be held up.
        """
        if _loop_runs_here():
            msg = (
                "wait_for_sync would hold up the event loop of this thread: write "
                "`await emulator.wait_for(...)`"
            )
            raise RuntimeError(msg)
        wanted = Wanted(event_type, user_id, device_id, properties, times)
        return self._waiting.wait_blocking(wanted, timeout, self._arrived)

    def _arrived(self) -> tuple[list[Seen], list[Seen]]:
        ledger = self._book.ledger()
        return ledger.stored("event"), ledger.rejected("event")


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
