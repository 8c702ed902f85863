"""What became of a request: watched as its answer is sent, and told once it was."""

from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any, Final

from amplitude_async.integrations.request_facts import text_of
from amplitude_async.integrations.route_template import template_of

__all__ = ["RequestWatch", "request_properties"]

# What may complete an answer, unless more is announced.
_BODIES: Final = frozenset(
    {
        "http.response.body",
        "http.response.zerocopysend",
        "websocket.http.response.body",
    }
)
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_REFUSED: Final = 403  # what servers answer to a handshake that is closed
_NORMAL: Final = 1000
_BROKEN: Final = 1011


class RequestWatch:
    """Watches what is sent in answer to one request, and changes none of it.

    Args:
        scope: of the request.
        send: of the server.
        tell: called once, with this watch: when the answer was sent, else at the end.
    """

    __slots__ = (
        "_began",
        "_code",
        "_has_trailers",
        "_is_accepted",
        "_is_complete",
        "_is_told",
        "_scope",
        "_send",
        "_status",
        "_tell",
    )

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        send: Callable[[Any], Awaitable[None]],
        tell: Callable[["RequestWatch"], None],
    ) -> None:
        self._scope = scope
        self._send = send
        self._tell = tell
        self._began = monotonic()
        self._status: int | None = None
        self._code: int | None = None
        self._has_trailers = False
        self._is_accepted = False
        self._is_complete = False
        self._is_told = False

    async def send(self, message: Any) -> None:
        """Send a message on, and look at it when it has gone out."""
        await self._send(message)
        kind = message["type"]
        if kind in _STARTS:
            self._status = message.get("status")
            self._has_trailers = bool(message.get("trailers"))
        elif kind == "websocket.accept":
            self._is_accepted = True
        elif kind == "websocket.close":
            self._note_close(message)
        elif self._is_last(kind, message):
            self._is_complete = True
            self.end()

    def fail(self, error: BaseException) -> None:
        """Note what the application raised in the place of an answer, or of its end."""
        if self._is_complete or not isinstance(error, Exception):
            return
        if not self._is_accepted:
            self._status = 500 if self._status is None else self._status
            return
        # A handler that does not mind that its client leaves is left by an exception.
        code = getattr(error, "code", None)
        is_farewell = type(code) is int and _NORMAL <= code < 5000
        self._code = code if is_farewell else _BROKEN

    def end(self) -> None:
        """Tell of the request, unless that was done."""
        if not self._is_told:
            self._is_told = True
            self._tell(self)

    def properties(self) -> dict[str, Any]:
        """Give the properties of the event that tells of this request."""
        scope = self._scope
        is_http = scope["type"] == "http"
        return request_properties(
            template_of(scope),
            scope["method"] if is_http else "WEBSOCKET",
            self._status,
            monotonic() - self._began,
            code=self._code,
            is_aborted=is_http and not self._is_complete,
        )

    def _note_close(self, message: Any) -> None:
        if self._is_accepted:
            self._code = message.get("code", _NORMAL)
        elif self._status is None:
            self._status = _REFUSED
        self._is_complete = True
        self.end()

    def _is_last(self, kind: str, message: Any) -> bool:
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        if kind == "http.response.pathsend":
            return not self._has_trailers
        if kind in _BODIES:
            return not (message.get("more_body", False) or self._has_trailers)
        return False


def request_properties(
    route: str | None,
    method: str,
    status: int | None,
    seconds: float,
    *,
    code: int | None = None,
    is_aborted: bool | None = None,
) -> dict[str, Any]:
    """Give the properties of the event that a request is tracked as.

    Args:
        route: the template that the path matched, never the path: it may hold ids.
        method: the HTTP method.
        status: the HTTP status of the response; None where none was sent.
        seconds: how long it took.
        code: what a websocket was closed with.
        is_aborted: whether the response did not come to its end; by default it is
            that one without a status.
    """
    if is_aborted is None:
        is_aborted = status is None
    found: dict[str, Any] = {
        "route": text_of(route) if route else None,
        "method": text_of(method),
        "status": status,
        "code": code,
        "duration": round(seconds, 6),
        "aborted": True if is_aborted else None,
    }
    return {name: value for name, value in found.items() if value is not None}
