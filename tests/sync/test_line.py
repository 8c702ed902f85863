"""Those in line: none ends without an outcome, and none holds up who comes later."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from amplitude_async.delivery.handle import Delivery
from amplitude_async.sync.delivery import SyncDelivery
from amplitude_async.sync.hatch import Hatch
from amplitude_async.sync.line import Line
from amplitude_async.sync.reply import Reply

__all__: list[str] = []


class _Seat:
    """Accepts an event by calling it."""

    def lane_of(self, _: object) -> None:
        """Know no lanes."""

    def offer(self, _: object) -> None:
        """Need a wait for each."""

    async def accept(self, cargo: Callable[[], Any]) -> object:
        """Do what the event says."""
        return await cargo()


def _handle(cargo: object, reply: Reply[None] | None = None) -> SyncDelivery:
    return SyncDelivery(cast("Hatch", None), cargo, "id", reply)


async def _told() -> Delivery:
    return cast("Delivery", object())


async def test_one_that_comes_while_others_are_given_up_is_settled() -> None:
    """A shutdown gives up whom a plugin keeps, and not who has just come."""
    line, loop = Line(cast("Any", _Seat())), asyncio.get_running_loop()
    late = _handle(_told)

    async def last() -> Delivery:
        # In the very step before the end looks at who is left.
        loop.call_soon(loop.call_soon, line.let_in, late)
        return await _told()

    line.let_in(_handle(last))
    await line.end()
    for _ in range(5):
        await asyncio.sleep(0)

    assert late.arrived is not None
    assert line.accepted == 0


async def test_one_that_is_withdrawn_at_once_holds_up_nobody() -> None:
    """Its place in the line is free again."""
    line = Line(cast("Any", _Seat()))
    gone = _handle(_told, Reply())
    line.let_in(gone)
    line.withdraw(gone)
    for _ in range(5):
        await asyncio.sleep(0)

    assert not line.is_waited_in
