"""The queue of fresh events gives them in order, one by one as well."""

import asyncio

import pytest

from amplitude_async.delivery.fresh import BulkQueue
from amplitude_async.storage.base import Record

__all__: list[str] = []


def record_of(number: int) -> Record:
    """Make an event."""
    return Record(number, b"{}", "u", "u", None, f"id-{number}", 0.0)


async def test_the_oldest_event_is_taken_out_by_itself() -> None:
    """DROP_OLDEST does so where events wait behind a storage that fails."""
    queue = BulkQueue()
    for number in (1, 2):
        queue.add(record_of(number))
    assert not queue.empty()
    assert [queue.get_nowait().id, queue.get_nowait().id] == [1, 2]
    assert queue.empty()
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()
