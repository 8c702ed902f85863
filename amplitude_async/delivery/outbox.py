"""Events that commit with a transaction of the caller's, or not at all."""

from typing import Any, Final

from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.outcome import DeliveryStatus, Outcome
from amplitude_async.delivery.parts import Parts, Site
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.storage.base import Record

__all__ = ["Outbox"]


class Outbox:
    """Puts single events into a log, within transactions of callers."""

    def __init__(self, site: Site, parts: Parts) -> None:
        self._site = site
        self._books = parts.books

    def __repr__(self) -> str:
        return f"<Outbox to {self._site.handover!r}>"

    @property
    def has_log(self) -> bool:
        """True where there is a log to put events into."""
        return self._site.handover is not None

    async def accept(self, connection: Any, record: Record) -> Delivery:
        """Accept an event into the log.

        Args:
            connection: has the transaction, which stays the caller's.
            record: the event, encoded.

        Raises:
            ConfigurationError: there is no log that can do that with this connection.
            LogError: the log does not take it.
        """
        site, books = self._site, self._books
        await books.wait_to_tell()
        verdict = site.gate.verdict_on(record) if INTERCEPTION.active else None
        if verdict is None:
            if site.handover is None:
                msg = "via= needs a log: make the client with handover=PostgresLog(...)"
                raise ConfigurationError(msg)
            await site.handover.hand_over_in(connection, record)
            verdict = _IN_TRANSACTION
        return books.settle_record(record, verdict, must_tell=True)


_IN_TRANSACTION: Final = Outcome(
    DeliveryStatus.HANDED_OVER,
    0,
    "the log has it, once the transaction of the caller commits",
    None,
    1,
)
