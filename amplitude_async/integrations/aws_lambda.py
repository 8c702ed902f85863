"""AWS Lambda: what an invocation tracked is delivered before the freeze after it.

``@flush_after(client)`` stands over a handler, ``flush_after_response(app, client)``
around an ASGI application that an adapter such as Mangum serves. Both wait for the
outcomes no longer than the invocation has left, less a margin. What has none by then
waits through the freeze and goes on with the next invocation.
"""

import asyncio
import contextvars
import functools
import inspect
import logging
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from amplitude_async.amplitude.client import Amplitude
from amplitude_async.binding import Opened
from amplitude_async.delivery.clock import LoopClock
from amplitude_async.delivery.reporting import Reporter, named
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.shown import shown
from amplitude_async.sync import SyncAmplitude

__all__ = ["FlushAfter", "flush_after", "flush_after_response"]

MARGIN: Final = 0.5
"""Seconds of an invocation that are left for everything else."""

MOST: Final = 900.0
"""Seconds that no invocation is longer than."""

Handler = Callable[[Any, Any], Any]
"""What Lambda calls with an event and a context; plain or async."""

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application."""


class FlushAfter:
    """Decorates handlers of one client, and has the loop of the async ones.

    The loop is kept between invocations, and with it the client's connections and
    whatever waits. One of these serves every async handler that uses the client; calls
    from several threads take turns.
    """

    def __init__(self, client: Amplitude | SyncAmplitude, margin: float) -> None:
        self._client = client
        self._limits = _Limits(client, margin)
        self._runner: asyncio.Runner | None = None
        self._turn = threading.RLock()

    def __call__(self, handler: Handler) -> Handler:
        """Wrap a handler, which Lambda then calls as a plain function.

        Raises:
            TypeError: the client is not the one for this kind of handler.
        """
        is_async = inspect.iscoroutinefunction(handler)
        if is_async != isinstance(self._client, Amplitude):
            raise TypeError(
                "an async handler awaits an Amplitude, and a plain one calls a "
                f"SyncAmplitude: change {getattr(handler, '__name__', 'the handler')} "
                "or its client"
            )

        @functools.wraps(handler)
        def invoke(event: Any, context: Any) -> Any:
            if is_async:
                return self._run(self._awaited(handler, event, context))
            # A scope for each: what one invocation binds, the next must not have.
            with Opened():
                try:
                    return handler(event, context)
                finally:
                    self._flush(context)

        return invoke

    def close(self, timeout: float | None = None) -> None:
        """Shut the client down, and close the loop of async handlers; for good.

        For SIGTERM, which Lambda sends to functions with an extension, and for tests.

        Args:
            timeout: seconds; ``Config.shutdown_timeout`` by default.
        """
        limit = self._client.config.shutdown_timeout if timeout is None else timeout
        if isinstance(self._client, SyncAmplitude):
            self._client.shutdown(limit)
        else:
            self._run(self._client.shutdown(limit))
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _run(self, work: Any) -> Any:
        # One after another: a loop runs one handler, whatever threads call it.
        with self._turn:
            if self._runner is None:
                self._runner = asyncio.Runner()
            # In a context of its own, as the runner's would go on to the next one.
            return self._runner.run(work, context=contextvars.copy_context())

    async def _awaited(self, handler: Handler, event: Any, context: Any) -> Any:
        with Opened():
            try:
                return await handler(event, context)
            finally:
                await self._limits.flush_within(context)

    def _flush(self, context: Any) -> None:
        client = self._client
        try:
            if isinstance(client, SyncAmplitude):
                client.flush(self._limits.of(context))
        except Exception as error:  # noqa: BLE001 - no invocation fails because of us
            self._limits.tell(error)

    def __repr__(self) -> str:
        return f"<FlushAfter of {self._client!r}>"


def flush_after(
    client: Amplitude | SyncAmplitude, *, margin: float = MARGIN
) -> FlushAfter:
    """Deliver what a handler tracked before it returns, and before Lambda's freeze.

    Use it as a decorator: ``@flush_after(client)``. What the handler returns or raises,
    Lambda gets. Each invocation has a scope of bound fields of its own.

    Args:
        client: made outside of the handler, started by the first event, and never shut
            down between invocations: an ``Amplitude`` for async handlers, else a
            ``SyncAmplitude``.
        margin: seconds of an invocation's remaining time that are not waited for.

    Raises:
        ConfigurationError: the margin is no number of seconds.
    """
    return FlushAfter(client, margin)


def flush_after_response(
    app: ASGIApp, client: Amplitude, *, margin: float = MARGIN
) -> ASGIApp:
    """Deliver what an ASGI application tracked at the end of each request.

    For adapters such as Mangum, which end the invocation with it and may run no
    lifespan: give the client to the application yourself, and switch lifespans off.

    Args:
        app: the application, with its middleware.
        client: made outside of it; the first event starts it.
        margin: seconds of an invocation's remaining time that are not waited for.

    Raises:
        ConfigurationError: the margin is no number of seconds.
    """
    limits = _Limits(client, margin)

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                await limits.flush_within(scope.get("aws.context"))

    return asgi


class _Limits:
    """How long the end of an invocation may wait."""

    def __init__(self, client: Amplitude | SyncAmplitude, margin: float) -> None:
        is_number = type(margin) in {int, float}
        if not is_number or not math.isfinite(margin) or margin < 0:
            raise ConfigurationError(
                f"margin={shown(margin)} must be a number of seconds, 0 or more"
            )
        self._client = client
        self._margin = margin
        logger: logging.Logger = client.config.logger
        self._reporter = Reporter(logger, LoopClock(), "lambda")

    def of(self, context: Any) -> float:
        """Give the seconds that an invocation has left, less the margin.

        Without a context, as in tests, ``flush_timeout`` is the limit.
        """
        try:
            left = float(context.get_remaining_time_in_millis()) / 1000 - self._margin
        except Exception:  # noqa: BLE001 - not Lambda's, so it says nothing
            usual = self._client.config.flush_timeout
            return MOST if usual is None else usual
        return max(left, 0.0)

    async def flush_within(self, context: Any) -> None:
        """Flush an asyncio client within an invocation."""
        try:
            if isinstance(self._client, Amplitude):
                await self._client.flush(self.of(context))
        except Exception as error:  # noqa: BLE001 - no invocation fails because of us
            self.tell(error)

    def tell(self, error: BaseException) -> None:
        """Say that a flush failed."""
        self._reporter.error("flush", "flush failed: %s", named(error))

    def __repr__(self) -> str:
        return f"<Limits margin={self._margin:g} s>"
