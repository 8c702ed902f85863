"""An event in a transaction of the caller's, for each destination that can do so."""

from collections.abc import Sequence
from typing import Any

from amplitude_async.client.destination import Destination, EngineDestination
from amplitude_async.delivery.handle import Delivery
from amplitude_async.exceptions import ConfigurationError

__all__ = ["accept_in_transaction"]


async def accept_in_transaction(
    connection: Any,
    event: Any,
    due: Sequence[Destination],
    *,
    own: EngineDestination,
) -> Delivery:
    """Accept an event for all destinations, of which those that hand over commit.

    One that sends by itself has its own after them: it knows of no transaction, and
    where a log does not take the event nobody is to have it.

    Args:
        connection: has the transaction.
        due: who gets the event, the one first whose handle is wanted.
        own: must hand over where it is among them.

    Raises:
        ConfigurationError: none of them has a log that can do that with this
            connection.
        LogError: a log does not take it.
    """
    made: dict[int, Delivery] = {}
    for destination in due:
        if isinstance(destination, EngineDestination) and (
            destination is own or destination.hands_over
        ):
            made[id(destination)] = await destination.accept_in(connection, event)
    if not made:
        msg = "via= needs a log, and no destination that is installed hands over to one"
        raise ConfigurationError(msg)
    for destination in due:
        if id(destination) not in made:
            made[id(destination)] = await destination.accept(event)
    return made[id(due[0])]
