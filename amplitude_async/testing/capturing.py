"""Takes the events of every client of the process, and sends none."""

import asyncio
from collections.abc import Iterable
from os import PathLike
from types import TracebackType

from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.testing.events import CapturedEvents
from amplitude_async.testing.masks import Mask

__all__ = ["capture"]


class capture:  # noqa: N801 - used as a function, as `suppress` and `timeout` are
    """Take the events of every client of this process, and send none.

    ``with capture() as events:`` and ``async with capture() as events:`` are alike. Of
    every client: made before or inside, of either vendor, asyncio or synchronous, on
    any loop or thread. None needs a key, and each event is in ``events`` when its verb
    has returned, as it would be on the wire: bound fields, plugins, checks and encoding
    are behind it. What was rejected or dropped is there with the reason. The handle
    says DELIVERED at once; callbacks and counters see what they would see.

    Nothing is sent while it lasts, and destination plugins get nothing. What was
    accepted before waits until it is over, unless its client is shut down meanwhile:
    then it ends as at any shutdown. Captures may be nested: each takes every event.

    Args:
        record: a file to write the events to at the end, for ``assert_recorded``; not
            after a test that has failed.
        mask: more keys to mask in it, or a ``Mask`` of your own.
        keep: keys to leave in it as they are.
    """

    def __init__(
        self,
        *,
        record: str | PathLike[str] | None = None,
        mask: Mask | Iterable[str] = (),
        keep: Iterable[str] = (),
    ) -> None:
        self._record = record
        self._mask = Mask.of(mask, keep)
        self._events = CapturedEvents()
        self._is_on = False

    def __enter__(self) -> CapturedEvents:
        if self._is_on:
            # The end of the inner one would end both, and what follows be sent.
            msg = "this capture is on: write `with capture()` for one inside of it"
            raise RuntimeError(msg)
        self._is_on = True
        INTERCEPTION.begin(self._events)
        return self._events

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        # What a failed test has tracked is no record of what it should.
        if error is None:
            self._write()

    async def __aenter__(self) -> CapturedEvents:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        if error is None and self._record is not None:
            await asyncio.to_thread(self._write)

    def _end(self) -> None:
        INTERCEPTION.end(self._events)
        self._is_on = False

    def _write(self) -> None:
        if self._record is not None:
            self._events.write(self._record, mask=self._mask)
