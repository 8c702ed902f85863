"""The handle that a synchronous verb returns."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from amplitude_async.delivery.guard import Place
from amplitude_async.delivery.handle import Delivery
from amplitude_async.delivery.outcome import DeliveryResult, DropReason, Outcome
from amplitude_async.delivery.reporting import log_quietly
from amplitude_async.sync.loop import logger, refuse_on_loop
from amplitude_async.sync.reply import Reply

if TYPE_CHECKING:
    from amplitude_async.sync.hatch import Hatch

__all__ = ["SyncDelivery"]


class SyncDelivery:
    """A handle on one event; ``result()`` waits for what became of it.

    Waiting brings the next flush forward; who gives up waiting never cancels the event.
    """

    __slots__ = (
        "_hatch",
        "_insert_id",
        "_listeners",
        "_reply",
        "arrived",
        "cargo",
        "withdrawn",
    )

    def __init__(
        self,
        hatch: "Hatch",
        cargo: Any,
        insert_id: str,
        reply: Reply[None] | None = None,
    ) -> None:
        self._reply = reply
        self._hatch = hatch
        self._insert_id = insert_id
        self._listeners: list[Callable[[Delivery], None]] | None = None
        self.cargo = cargo
        """What is handed over to the loop."""
        self.arrived: Delivery | None = None
        """The handle of the asyncio client, once it has the event."""
        self.withdrawn = False
        """True where the caller no longer wants it accepted."""

    @property
    def insert_id(self) -> str:
        """The vendor's deduplication key of the event."""
        return self._insert_id

    @property
    def done(self) -> bool:
        """True once the event has its final outcome."""
        return self._known() is not None

    def result(self, timeout: float | None = None) -> DeliveryResult:
        """Wait for the final result; brings the next flush forward.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            TimeoutError: the event is still undecided.
            AmplitudeError: an event loop runs on this thread.
        """
        known = self._known()
        if known is not None:
            return known
        refuse_on_loop(self._hatch.client)
        try:
            return self._hatch.thread.run(self._decided(), timeout)
        except TimeoutError:
            msg = f"the event is undecided after timeout={timeout} s: wait longer"
            raise TimeoutError(msg) from None

    def add_done_callback(self, callback: "Callable[[SyncDelivery], object]") -> None:
        """Call ``callback(self)`` once the event is decided, on the loop's thread.

        It should return at once: meanwhile nothing is sent. What it raises is logged.
        """
        context = contextvars.copy_context()

        def call() -> None:
            context.run(_call, callback, self)

        def call_soon() -> None:
            asyncio.get_running_loop().call_soon(call)

        def listen(delivery: Delivery) -> None:
            delivery.listen(call_soon)

        if self._hatch.inherited or not self._hatch.thread.post(self._tell, listen):
            call()

    # For the hatch -----------------------------------------------------------

    @property
    def has_caller(self) -> bool:
        """True where the verb waits until the event is accepted."""
        return self._reply is not None

    @property
    def caller(self) -> Place | None:
        """The line whose verb waits, where a test's guard would want to name it."""
        return None if self._reply is None else self._reply.caller

    def wait_for_reply(self) -> None:
        """Wait until the event is accepted; raises why it is not."""
        if self._reply is not None:
            self._hatch.thread.wait(self._reply)

    def withdraw(self) -> None:
        """Want the event accepted no more."""
        self.withdrawn = True

    def fail(self, error: BaseException) -> None:
        """Tell the waiting verb why its event is not accepted."""
        if self._reply is not None:
            self._reply.fail(error)

    # On the loop's thread ----------------------------------------------------

    def arrive(self, delivery: Delivery) -> None:
        """Take the handle of the asyncio client; tell who waits for it."""
        self.arrived = delivery
        if not self._insert_id:
            self._insert_id = delivery.insert_id
        listeners, self._listeners = self._listeners, None
        for listener in listeners or ():
            listener(delivery)
        if self._reply is not None:
            self._reply.give(None)

    def _tell(self, listener: Callable[[Delivery], None]) -> None:
        if self.arrived is not None:
            listener(self.arrived)
        elif self._listeners is None:
            self._listeners = [listener]
        else:
            self._listeners.append(listener)

    async def _decided(self) -> DeliveryResult:
        if self.arrived is None:
            await self._hatch.let_in_now()
        if self.arrived is None:
            arrival = asyncio.Event()
            self._tell(lambda _: arrival.set())
            await arrival.wait()
        return await cast("Delivery", self.arrived)

    def _known(self) -> DeliveryResult | None:
        delivery = self.arrived
        result = None if delivery is None else delivery.result
        if result is None and self._hatch.inherited:
            return self._hatch.result_of(self.cargo, self._insert_id, _FORKED)
        return result

    def __repr__(self) -> str:
        return f"<SyncDelivery {self._insert_id} {self._known() or 'pending'}>"


def _call(callback: Callable[[SyncDelivery], object], handle: SyncDelivery) -> None:
    try:
        callback(handle)
    except BaseException as error:  # noqa: BLE001 - user code, fenced
        text = f"a done callback raised {type(error).__name__}"
        log_quietly(logger, logging.ERROR, text, error)


_FORKED: Final = Outcome.dropped(
    DropReason.FORK, "accepted before os.fork(): the parent process has it"
)
