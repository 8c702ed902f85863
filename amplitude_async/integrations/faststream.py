"""One client for a FastStream service, and a scope of bound fields for each message.

``FastStream(broker, lifespan=amplitude_lifespan())`` starts the client before the
broker and drains it after the broker has stopped; a handler takes it as
``amplitude: AmplitudeDep``. ``AmplitudeMessageMiddleware(carry=True)`` is one of the
broker's ``middlewares``.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, Final, Unpack

from faststream import BaseMiddleware, Context, ContextRepo
from faststream.message import StreamMessage
from faststream.message.source_type import SourceType

from amplitude_async import Amplitude
from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.binding import Scope, fields_here
from amplitude_async.integrations.carrier import HEADER, Carrier
from amplitude_async.integrations.jobs import JobScope, fields_around

__all__ = ["AmplitudeDep", "AmplitudeMessageMiddleware", "amplitude_lifespan"]

AmplitudeDep = Annotated[Amplitude, Context("amplitude")]
"""The client as the parameter of a handler: ``amplitude: AmplitudeDep``."""

_CLIENT: Final = "amplitude"
_AROUND: Final = "amplitude_around"


def amplitude_lifespan(
    client: Amplitude | None = None, **options: Unpack[ConfigFields]
) -> Callable[..., AbstractAsyncContextManager[None]]:
    """Make the lifespan of a FastStream application that has a client.

    A lifespan of one's own holds it: ``async with amplitude_lifespan()(context):``.

    Args:
        client: one that the application starts and shuts down itself; by default
            ``Amplitude.from_env(**options)``.
        options: fields of ``Config``.
    """

    @asynccontextmanager
    async def lifespan(
        context: ContextRepo,
    ) -> AsyncIterator[None]:
        context.set_global(_AROUND, fields_around())
        try:
            if client is not None:
                context.set_global(_CLIENT, client)
                yield
            else:
                async with Amplitude.from_env(**options) as own:
                    context.set_global(_CLIENT, own)
                    yield
        finally:
            context.reset_global(_CLIENT)
            context.reset_global(_AROUND)

    return lifespan


class AmplitudeMessageMiddleware:
    """Gives each message that is consumed a scope, and takes identity along.

    Args:
        carry: what travels with a message from where it is published: True for all of
            ``carrier.CARRIED``, or the names of some. Both sides have to say so.
        flush_each: send the events of a message before it is acknowledged, within
            ``flush_timeout``.
    """

    def __init__(
        self, *, carry: bool | Collection[str] = False, flush_each: bool = False
    ) -> None:
        self._carrier = Carrier(carry)
        self._flush_each = flush_each

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> BaseMiddleware[Any]:
        """Make the middleware of one message, as FastStream asks for it."""
        return _OneMessage(
            msg, context=context, carrier=self._carrier, flush_each=self._flush_each
        )


class _OneMessage(BaseMiddleware[Any, Any]):
    def __init__(
        self, msg: Any, *, context: ContextRepo, carrier: Carrier, flush_each: bool
    ) -> None:
        super().__init__(msg, context=context)
        self._carrier = carrier
        self._flush_each = flush_each
        self._consumed: Scope | None = None

    async def consume_scope(
        self, call_next: Callable[[Any], Any], msg: StreamMessage[Any]
    ) -> Any:
        """Open a scope around the handler."""
        # The answer to a request of ours is no job, but a part of the one that asked.
        if msg.source_type is SourceType.RESPONSE:
            return await call_next(msg)
        around: Mapping[str, Any] = self.context.get(_AROUND) or {}
        carried = self._carrier.unpacked(_header_of(msg))
        with JobScope(around, carried) as scope:
            self._consumed = scope
            try:
                result = await call_next(msg)
            except Exception:
                await self._flush()
                raise
            await self._flush()
            return result

    async def publish_scope(self, call_next: Callable[[Any], Any], cmd: Any) -> Any:
        """Write what is bound into a header of what is published."""
        # What a handler returns is published when its scope has ended.
        fields = fields_here() if self._consumed is None else self._consumed.fields
        header = self._carrier.packed(fields)
        if header is not None:
            # Without overriding, the caller's own dict is left as it is.
            cmd.add_headers({HEADER: header}, override=False)
        return await call_next(cmd)

    async def _flush(self) -> None:
        client: Amplitude | None = self.context.get(_CLIENT)
        if self._flush_each and client is not None:
            await client.flush()


def _header_of(msg: StreamMessage[Any]) -> object:
    """Give the carrier of a message; of a batch, the one that all of it has."""
    found: list[object] = [headers.get(HEADER) for headers in msg.batch_headers]
    if not found:
        return msg.headers.get(HEADER)
    return found[0] if all(other == found[0] for other in found) else None
