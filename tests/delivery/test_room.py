"""How full memory is: bounds, promised places and the line of those who wait."""

import asyncio

import pytest

from amplitude_async.delivery.deciding.attempts import Held
from amplitude_async.delivery.outcome import DropReason, Outcome
from amplitude_async.delivery.room import Room
from amplitude_async.storage.base import Record
from amplitude_async.testing import FakeClock

__all__: list[str] = []


def room(capacity: int = 3, max_bytes: int = 100) -> tuple[Room, FakeClock]:
    """Make an empty room and the clock it looks at."""
    clock = FakeClock()
    return Room(capacity, max_bytes, clock), clock


async def line_up(
    room: Room, clock: FakeClock, *sizes: int, timeout: float = 5.0
) -> list["asyncio.Task[bool]"]:
    """Let events wait in line, in this order."""
    tasks = []
    for size in sizes:
        tasks.append(asyncio.create_task(room.wait(size, timeout)))
        await clock.settle()
    return tasks


def fill(room: Room, events: int, size: int = 10) -> None:
    """Give places to events that fit."""
    assert [room.take(size) for _ in range(events)] == [True] * events


def test_the_last_place_and_the_last_byte_can_be_taken() -> None:
    """Both bounds are included, and what does not fit changes nothing."""
    few, _ = room(capacity=2)
    fill(few, 2)
    assert not few.fits(0)
    assert not few.take(0)
    assert (few.count, few.bytes) == (2, 20)

    small, _ = room(max_bytes=20)
    fill(small, 1)
    assert small.fits(10)
    assert not small.fits(11)
    assert not small.take(11)
    fill(small, 1)
    assert (small.count, small.bytes) == (2, 20)
    assert small.could_hold(20)
    assert not small.could_hold(21)


def test_a_place_that_is_freed_can_be_taken_again() -> None:
    """Of several, count and bytes come back."""
    full, _ = room()
    fill(full, 3, size=20)
    full.free(2, 40)

    assert (full.count, full.bytes) == (1, 20)
    fill(full, 2, size=40)


def test_half_is_left_for_a_storage() -> None:
    """The other half is for new events; a fuller room has nothing left, not less."""
    shared, _ = room(capacity=7, max_bytes=101)
    assert shared.half_left() == (3, 50)
    fill(shared, 1)
    assert shared.half_left() == (2, 40)
    shared.take_in([Record(n, b"x" * 20, "u", "u", None, "i", 0.0) for n in range(3)])

    assert (shared.count, shared.bytes) == (4, 70)
    assert shared.half_left() == (0, 0)
    with_one = Room(6, 100, FakeClock())
    with_one.take_in([Record(1, b"x" * 49, "u", "u", None, "i", 0.0)])
    assert with_one.half_left() == (2, 1)


def test_whoever_found_no_room_makes_it_crowded() -> None:
    """Until all that waits is on its way."""
    full, _ = room()
    assert not full.crowded
    full.crowd()
    assert full.crowded
    full.relieve()
    assert full.crowded is False


async def test_a_line_is_served_in_order_of_arrival() -> None:
    """Nobody small slips past a large one, and nobody new past the line."""
    full, clock = room()
    fill(full, 3, size=30)
    large, small = await line_up(full, clock, 50, 1)
    full.free(1, 30)
    full.admit()
    await clock.settle()
    assert large.done() is False
    assert small.done() is False
    assert not full.take(1)

    full.free(1, 30)
    full.admit()
    await clock.settle()
    assert (await large, await small) == (True, True)
    assert (full.count, full.bytes) == (3, 81)
    assert clock.next_timer is None
    full.free(1, 30)
    fill(full, 1, size=1)


async def test_a_promised_place_is_nobody_elses() -> None:
    """Between the promise and the taking, count and bytes are spoken for."""
    full, clock = room(capacity=2, max_bytes=50)
    fill(full, 2, size=20)
    (waiting,) = await line_up(full, clock, 30)
    full.free(2, 40)
    full.admit()

    assert repr(full) == "<Room 0 of 2 events, 0 of 50 bytes, 1 promised>"
    assert full.fits(20)
    assert not full.fits(21)
    assert not full.take(21)
    fill(full, 1, size=20)
    assert not full.take(0)
    assert not full.fits(0)
    assert await waiting
    assert (full.count, full.bytes) == (2, 50)
    assert repr(full).endswith("0 promised>")


async def test_nobody_waits_longer_than_agreed() -> None:
    """Whoever gives up leaves the line, and the next one is first."""
    full, clock = room(capacity=1)
    fill(full, 1)
    (hasty,) = await line_up(full, clock, 1, timeout=1.0)
    (patient,) = await line_up(full, clock, 2, timeout=5.0)
    assert repr(full).endswith("0 promised, 2 in line>")
    await clock.advance(0.9)
    assert not hasty.done()
    await clock.advance(0.1)
    assert await hasty is False
    assert repr(full).endswith("1 in line>")

    full.free(1, 10)
    full.admit()
    assert await patient
    assert (full.count, full.bytes) == (1, 2)


async def test_a_promise_to_somebody_who_left_goes_to_the_next() -> None:
    """Cancelled between the promise and the taking."""
    full, clock = room(capacity=1, max_bytes=10)
    fill(full, 1)
    first, second = await line_up(full, clock, 10, 9)
    full.free(1, 10)
    full.admit()
    first.cancel()

    assert await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (full.count, full.bytes) == (1, 9)
    full.free(1, 9)
    fill(full, 1)
    assert clock.next_timer is None


async def test_whoever_leaves_the_line_takes_no_promise_back() -> None:
    """Cancelled while waiting: the account stays as it is."""
    full, clock = room(capacity=1)
    fill(full, 1)
    (waiting,) = await line_up(full, clock, 10)
    waiting.cancel()
    await clock.settle()

    assert repr(full) == "<Room 1 of 1 events, 10 of 100 bytes, 0 promised>"
    assert clock.next_timer is None
    full.free(1, 10)
    assert not full.fits(101)
    fill(full, 1, size=100)


async def test_several_are_let_in_at_once() -> None:
    """Each has its place and its bytes promised until it takes them."""
    full, clock = room(max_bytes=60)
    fill(full, 3, size=20)
    tasks = await line_up(full, clock, 25, 15)
    full.free(2, 40)
    full.admit()
    assert not full.take(1), "both places are promised"
    assert "2 promised" in repr(full)
    assert not full.fits(1)

    await clock.settle()
    assert [task.result() for task in tasks] == [True, True]
    assert (full.count, full.bytes) == (3, 60)


@pytest.mark.parametrize("closing", [False, True])
async def test_a_line_can_be_sent_away(closing: bool) -> None:
    """All who wait hear that it does not help; a closed room says so for good."""
    full, clock = room()
    fill(full, 3)
    tasks = await line_up(full, clock, 1, 2, 3)
    told: list[asyncio.Task[bool]] = []
    for task in tasks:
        task.add_done_callback(told.append)
    assert full.closed is False
    if closing:
        full.close(Outcome.dropped(DropReason.CLOSED, "closed"))
    else:
        full.send_away()

    await clock.settle()
    assert told == tasks
    assert [task.result() for task in tasks] == [False] * 3
    assert full.closed is closing
    assert repr(full) == "<Room 3 of 3 events, 30 of 100 bytes, 0 promised>"


async def test_another_loop_finds_no_line_and_no_promise() -> None:
    """Who waited on a closed loop waits no more; the events stay."""
    full, clock = room(capacity=2)
    fill(full, 2)
    tasks = await line_up(full, clock, 50, 50)
    full.free(1, 10)
    full.admit()
    full.rebind()

    assert repr(full) == "<Room 1 of 2 events, 10 of 100 bytes, 0 promised>"
    assert full.fits(90)
    assert not full.fits(91)
    for task in tasks:
        task.cancel()


def test_held_events_have_an_account_of_their_own() -> None:
    """Room is what is left of the most, and never below nothing."""
    held = Held(3)
    held.change(2)
    assert (held.count, held.room) == (2, 1)
    held.change(5)
    assert (held.count, held.room) == (7, 0)
    held.change(-7)
    assert (held.room, repr(held)) == (3, "<Held 0 of 3>")


class Compared(asyncio.Future[bool]):
    """A future that counts how often it is compared with others."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Compared.comparisons += 1
        return self is other

    __hash__ = asyncio.Future.__hash__


async def test_whoever_leaves_a_long_line_early_looks_at_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands who give up, the last one first, cost as much each as a few."""
    full, _ = room(capacity=1)
    fill(full, 1)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_future", lambda: Compared(loop=loop))
    waiting = [full.wait(1, 60.0) for _ in range(3_000)]
    for one in waiting:
        one.send(None)
    monkeypatch.undo()
    for one in reversed(waiting):
        with pytest.raises(asyncio.CancelledError):
            one.throw(asyncio.CancelledError())

    assert Compared.comparisons == 0
    assert "in line" not in repr(full)
