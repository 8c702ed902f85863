"""Which events of throttled identities are in the storage only."""

import pytest

from amplitude_async.delivery.unread import Left
from amplitude_async.storage.base import Record

__all__: list[str] = []


def record(number: int, user: str = "ann") -> Record:
    """Make an event."""
    return Record(number, b"{}", user, user, None, str(number), 0.0)


@pytest.mark.parametrize(
    ("gone", "removed", "rest"),
    [
        ([1, 2], 2, [3, 5, 8]),
        ([2, 5], 2, [1, 3, 8]),
        ([1, 9], 1, [2, 3, 5, 8]),
        ([1, 2, 3, 5, 8, 9], 5, []),
        ([], 0, [1, 2, 3, 5, 8]),
    ],
    ids=["the first", "between", "one of another", "all", "none"],
)
def test_numbers_are_struck_out(gone: list[int], removed: int, rest: list[int]) -> None:
    """Wherever they stand, and only of the identity that is named."""
    left = Left()
    for number in (3, 1, 8, 2, 5):
        left.add(record(number))
    left.add(record(4, "bob"))

    assert left.remove("ann", gone) == removed
    assert list(left.first_of("ann", 9)) == rest
    assert [n for n in range(10) if left.has(record(n))] == rest
    assert ("ann" in left) is bool(rest)
    assert left.count == len(rest) + 1
    assert left.remove("eve", [1]) == 0
