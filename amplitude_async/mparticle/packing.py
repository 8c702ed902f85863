"""Making batches out of events, and small batches out of big ones."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from amplitude_async.mparticle.models.batch import (
    Batch,
    encode_head,
    events_of,
    join_batch,
    new_uuid,
)
from amplitude_async.mparticle.models.enums import Environment
from amplitude_async.mparticle.models.envelope import Envelope, encode_event
from amplitude_async.mparticle.models.identities import UserIdentities

__all__ = ["group_events", "split_batch"]

Identities: TypeAlias = UserIdentities | Mapping[str, Any]

# What joins a head and its events: ,"events":[]
_FRAME: Final = len(b',"events":[]')


def group_events(
    events: Iterable[tuple[Identities, Envelope]],
    *,
    environment: Environment | str,
    **shared: Any,
) -> list[Batch]:
    """Sort the events of many users into one batch for each user.

    Users come in the order of their first event, and their events in the order given.

    Args:
        events: Pairs of a user's identities and one of the user's events. Pairs with
            equal identities belong to the same user.
        environment: Goes into each batch.
        **shared: Further fields of `Batch` that go into each of them.
    """
    users: dict[frozenset[tuple[str, str]], UserIdentities] = {}
    groups: dict[frozenset[tuple[str, str]], list[Envelope]] = {}
    for given, event in events:
        identities = (
            given
            if isinstance(given, UserIdentities)
            else UserIdentities.model_validate(given)
        )
        key = frozenset(identities.model_dump(exclude_none=True).items())
        users.setdefault(key, identities)
        groups.setdefault(key, []).append(event)
    return [
        Batch.model_validate(
            {
                **shared,
                "environment": environment,
                "user_identities": users[key],
                "events": group,
            }
        )
        for key, group in groups.items()
    ]


def split_batch(
    batch: Batch, max_bytes: int, *, new_id: Callable[[], str] = new_uuid
) -> list[Batch]:
    """Spread the events of a batch over as many batches as its encoded size needs.

    Each part has the same user, device, app and consent, and a ``source_request_id``
    of its own; the order of the events stays.

    Args:
        batch: Not changed.
        max_bytes: The most an encoded part may have.
        new_id: Makes ids of parts.

    Returns:
        The batch itself where it fits.

    Raises:
        ValueError: One event, or the rest of the batch, is too big by itself.
    """
    events = events_of(batch)
    bodies = [encode_event(event) for event in events]
    if len(join_batch(encode_head(batch), bodies)) <= max_bytes:
        return [batch]
    # The server's own id of the batch would make it drop all parts but one.
    part_of: dict[str, Any] = {"batch_id": None, "events": []}
    head = batch.model_copy(update={**part_of, "source_request_id": new_id()})
    room = max_bytes - len(encode_head(head)) - _FRAME
    sizes = [len(body) for body in bodies]
    _check_room(sizes, room, max_bytes)
    return [
        batch.model_copy(
            update={
                **part_of,
                "source_request_id": new_id(),
                "events": events[start:stop],
            }
        )
        for start, stop in _pieces(sizes, room)
    ]


def _check_room(sizes: list[int], room: int, max_bytes: int) -> None:
    if room <= 0 or not sizes:
        raise ValueError(
            f"the batch has {max_bytes - room} bytes without its events, the limit is "
            f"{max_bytes}: send fewer user attributes"
        )
    for index, size in enumerate(sizes):
        if size > room:
            raise ValueError(
                f"events[{index}] has {size} bytes, the limit of {max_bytes} for a "
                f"batch leaves {room} for events: send fewer or shorter attributes"
            )


def _pieces(sizes: list[int], room: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of the longest runs that fit, with commas between."""
    start, used = 0, 0
    for index, size in enumerate(sizes):
        if index > start and used + 1 + size > room:
            yield start, index
            start, used = index, 0
        used += size + (1 if index > start else 0)
    yield start, len(sizes)
