"""Which events may share a request, in order per identity."""

import itertools

import pytest

from amplitude_async.delivery.deciding.attempts import Attempts
from amplitude_async.delivery.deciding.batcher import Batcher
from amplitude_async.delivery.deciding.group import Group
from amplitude_async.storage.base import Record

__all__: list[str] = []


def record(number: int, identity: str, size: int = 9) -> Record:
    """Return an event of an identity."""
    name = f"{identity}{number}"
    return Record(number, b"x" * size, identity, identity, None, name, 0.0)


def failed(failures: dict[int, int], max_batch_size: int = 100) -> Attempts:
    """Charge events, by number, so many times: the first failure is never charged."""
    attempts = Attempts(max_batch_size)
    taken = itertools.count()
    for number, times in failures.items():
        for _ in range(times + 1):
            # Something else was taken since: proof that it may be the event's fault.
            attempts.fail(record(number, "a"), taken=next(taken), broken=True)
    return attempts


def queue(batcher: Batcher, identities: str, start: int = 1) -> None:
    """Queue events: "aab" are two of "a" and one of "b", numbered in that order."""
    batcher.add(record(n, identity) for n, identity in enumerate(identities, start))


def take(batcher: Batcher, size: int = 100, max_bytes: int = 10**6) -> Group | None:
    """Form a group; events of owned identities are parked at the owner."""
    return batcher.take(size, max_bytes, batcher.park)


def taken(batcher: Batcher, size: int = 100, max_bytes: int = 10**6) -> Group:
    """Form a group that must be there."""
    group = take(batcher, size, max_bytes)
    assert group is not None
    return group


def ids(group: Group) -> list[int]:
    """Number the events of the piece that goes next."""
    return [r.id for r in group.pieces[-1]]


def test_an_empty_queue_makes_no_group() -> None:
    """There is nothing to take and nothing to pop."""
    batcher = Batcher(Attempts(100))

    assert take(batcher) is None
    assert batcher.take_head() is None
    assert batcher.pop_oldest() is None
    assert batcher.oldest is None


@pytest.mark.parametrize(
    ("size", "max_bytes", "expected"),
    [
        pytest.param(100, 1_000, [1, 2, 3, 4], id="all"),
        pytest.param(3, 1_000, [1, 2, 3], id="by count"),
        pytest.param(100, 20, [1, 2], id="by bytes, with commas"),
        pytest.param(100, 19, [1], id="by bytes, one too many"),
        pytest.param(100, 5, [1], id="the first always fits"),
    ],
)
def test_a_group_ends_at_count_or_bytes(
    size: int, max_bytes: int, expected: list[int]
) -> None:
    """The head of the queue is taken as far as both bounds go."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "abcd")

    assert ids(taken(batcher, size, max_bytes)) == expected
    assert len(batcher) == 4 - len(expected)


def test_an_owned_identity_is_parked_not_taken() -> None:
    """What the queue holds for an owned identity goes to its owner."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "ab")
    first = taken(batcher)
    queue(batcher, "acb", start=3)

    second = taken(batcher)

    assert ids(second) == [4]
    assert batcher.owner("a") is batcher.owner("b") is first
    assert [r.id for r in first.waiting()] == [1, 2, 3, 5]


def test_parked_events_do_not_count_towards_the_size() -> None:
    """A group is full with what it carries, not with what it moved away."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "a")
    taken(batcher)
    queue(batcher, "aaabc", start=2)

    assert ids(taken(batcher, size=2)) == [5, 6]


def test_release_brings_parked_events_to_the_head_in_runs() -> None:
    """Grouped by identity, in order within each, before all that came later."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "ab")
    group = taken(batcher)
    queue(batcher, "abab", start=3)
    assert take(batcher) is None
    queue(batcher, "c", start=7)
    group.unpack()

    assert batcher.release(group) == 4
    assert batcher.owner("a") is None
    assert ids(taken(batcher)) == [3, 5, 4, 6, 7]


def test_dissolving_keeps_the_order_of_every_identity() -> None:
    """Pieces come first, as they would have gone; then what was parked."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "abab")
    group = taken(batcher)
    group.cut(2, 10**6)
    queue(batcher, "bac", start=5)
    assert ids(taken(batcher)) == [7]

    batcher.dissolve(group)

    assert batcher.groups() != [group]
    assert ids(taken(batcher)) == [1, 2, 3, 4, 5, 6]


def test_events_that_failed_travel_in_smaller_company() -> None:
    """Each failure halves the largest request an event may be part of."""
    attempts = failed({1: 1, 2: 1, 3: 3, 4: 3, 5: 10}, max_batch_size=16)
    batcher = Batcher(attempts)
    queue(batcher, "abcde" + "fghijklmnopqrstuvwxyz")

    # Events 3 and 4 tolerate one neighbour, event 5 none.
    assert [len(ids(taken(batcher, 16))) for _ in range(4)] == [2, 2, 1, 16]
    assert [attempts.size_limit(record(n, "a")) for n in (1, 3, 5, 9)] == [8, 2, 1, 16]


def test_heads_are_taken_of_each_identity_in_turn() -> None:
    """So one event that cannot be taken is not mistaken for an outage."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "aabbc")
    heads = []
    for _ in range(5):
        group = batcher.take_head()
        assert group is not None
        heads += ids(group)
        group.send(0.0)
        group.answer()
        batcher.dissolve(group)

    # What is put back stands at the head; after all had their turn it begins again.
    assert heads == [1, 3, 5, 5, 3]
    batcher.forget_probes()
    head = batcher.take_head()
    assert head is not None
    assert ids(head) == [3]


def test_a_head_is_never_of_an_owned_identity() -> None:
    """It would overtake what its owner still has to send."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "a")
    taken(batcher)
    queue(batcher, "aab", start=2)

    head = batcher.take_head()
    assert head is not None
    assert ids(head) == [4]
    assert batcher.take_head() is None


def test_an_identity_is_extracted_in_order_from_everywhere() -> None:
    """Pieces as they would have gone, then what was parked; empty pieces vanish."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "aaba")
    group = taken(batcher)
    piece = group.take_piece()
    for records in (piece[3:], piece[1:3], piece[:1]):
        group.put_back(records)
    queue(batcher, "ab", start=5)
    assert take(batcher) is None

    found = group.extract(["a"])["a"]

    assert [r.id for r in found] == [1, 2, 4, 5]
    assert [[r.id for r in piece] for piece in group.pieces] == [[3]]
    assert [r.id for r in group.waiting()] == [3, 6]


def test_a_new_owner_keeps_the_identity_when_the_old_one_is_released() -> None:
    """A lane that took an identity over is not robbed of it."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "ab")
    old = taken(batcher)
    lane = Group([old.extract(["a"])["a"]], window=30)
    batcher.own(lane, "a")

    batcher.release(old)

    assert batcher.owner("a") is lane
    assert batcher.owner("b") is None
    assert lane.throttled
    assert not old.throttled


def test_removing_spares_what_is_in_flight() -> None:
    """The piece on the wire has its own end; all others can be taken out."""
    batcher = Batcher(Attempts(100))
    queue(batcher, "ab")
    group = taken(batcher)
    group.cut(1, 10**6)
    group.send(0.0)
    queue(batcher, "ac", start=3)
    assert ids(taken(batcher)) == [4]
    queue(batcher, "d", start=5)

    removed = batcher.remove(lambda records: [r for r in records if r.id != 4])

    assert sorted(r.id for r in removed) == [2, 3, 5]
    assert ids(group) == [1]
    assert list(group.waiting()) == []


def test_reprs_show_sizes() -> None:
    """A lane says how many events it lets through."""
    lane = Group([[record(2, "a")], [record(1, "a")]], window=15)
    lane.park(record(3, "a"))

    assert repr(lane) == "<Group ready [1, 1] parked=1 window=15>"
