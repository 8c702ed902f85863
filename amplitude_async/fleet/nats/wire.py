"""A connection that asks and is answered, and says for sure what was not sent."""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amplitude_async.exceptions import (
    ChunkTooLargeError,
    ConfigurationError,
    LogError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.fleet.nats import door
from amplitude_async.fleet.nats.access import Access

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["Message", "Wire", "describe"]

CONNECT_LIMIT: Final = 5.0
CLOSE_LIMIT: Final = 3.0
_NO_RESPONDERS: Final = "503"
_END_OF_BATCH: Final = ("204", "404", "408", "503")


class Message(NamedTuple):
    """What came in, whatever the library calls it."""

    subject: str
    reply: str
    data: bytes
    headers: Mapping[str, str]

    @property
    def status(self) -> str:
        """Three digits where a server speaks, and no publisher."""
        return self.headers.get("Status", "")

    @property
    def json(self) -> dict[str, Any]:
        """What an answer says."""
        try:
            found = json.loads(self.data)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}


def describe(message: Message) -> str:
    """Give the words of a status; the library's name for them is no plain text."""
    return message.headers.get("Description", "")


class Wire:
    """One connection to whichever server is there, and the questions under way on it.

    Args:
        access: where the servers are.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._connected = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._asked_about: dict[str, str] = {}
        self._inbox = ""
        self._closed = True
        self._trouble: Exception | None = None
        self._scope: asyncio.Timeout | None = None
        self.reconnects = 0
        """Grows whenever a connection is lost: what was under way on it is gone."""

    def __repr__(self) -> str:
        state = "connected" if self._connected.is_set() else "not connected"
        return f"<Wire to {','.join(self._access.hosts)}: {state}>"

    @property
    def server(self) -> Mapping[str, Any]:
        """What the server said of itself."""
        found: Mapping[str, Any] = getattr(self._client, "_server_info", {})
        return found

    @property
    def max_payload(self) -> int:
        """Most bytes of a message with its headers."""
        return int(self.server.get("max_payload", 0))

    @property
    def closed(self) -> bool:
        """True where asking again is of no use."""
        return self._closed

    # Being connected ---------------------------------------------------------

    async def connect(self, limit: float = CONNECT_LIMIT) -> "Client":
        """Give a client that is connected.

        Raises:
            LogUnreachableError: no server answers in time.
            LogRefusedError: they do not let us in.
            ConfigurationError: the library is missing.
        """
        if self._closed:
            raise LogUnreachableError("the log is closed: open it first")
        client = self._client
        if client is not None and client.is_connected:
            return client
        try:
            async with asyncio.timeout(limit) as scope, self._connecting:
                self._scope = scope
                client = self._client
                if client is None or client.is_closed:
                    return await self._new()
                await self._connected.wait()
                return client
        except TimeoutError:
            raise self._unreachable() from None

    async def _new(self) -> "Client":
        await self._drop()
        client = self._client = door.new_client()
        try:
            await door.connect(
                client,
                self._access,
                failed=self._failed,
                left=self._left,
                returned=self._returned,
            )
            self._inbox = f"_INBOX.{secrets.token_hex(11)}"
            await client.subscribe(f"{self._inbox}.*", cb=self._answered)
        except BaseException as error:
            await self._drop()
            if isinstance(error, ConfigurationError | asyncio.CancelledError):
                raise
            if isinstance(error, Exception):
                self._trouble = error
                raise self._unreachable() from None
            raise
        self._connected.set()
        return client

    async def _drop(self) -> None:
        client, self._client = self._client, None
        self._connected.clear()
        if client is not None:
            # A server that is gone may not take the last bytes.
            with suppress(OSError, TimeoutError, door.library_errors()):
                async with asyncio.timeout(CLOSE_LIMIT):
                    await door.end(client)

    def _unreachable(self) -> LogError:
        where = ", ".join(self._access.hosts)
        trouble, self._trouble = self._trouble, None
        if trouble is not None and _is_refusal(trouble):
            msg = f"{where} refuses user, password or credentials: check them"
            return LogRefusedError(msg)
        why = f" ({type(trouble).__name__})" if trouble is not None else ""
        return LogUnreachableError(f"no NATS server answers at {where}{why}")

    async def _failed(self, error: Exception) -> None:
        """Hear of trouble that the library has on its own time."""
        self._trouble = error
        client = self._client
        if client is not None and (client.is_connecting or client.is_reconnecting):
            door.hang_up(client)
        words = str(error).casefold()
        if "permissions violation" in words:
            for token, subject in list(self._asked_about.items()):
                if f'"{subject.casefold()}"' in words:
                    msg = f"no right to publish to {subject}: grant it to this user"
                    self._fail(token, LogRefusedError(msg))
        elif _is_refusal(error) and self._scope is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._scope.reschedule(asyncio.get_running_loop().time())

    async def _left(self) -> None:
        self._connected.clear()
        self.reconnects += 1
        for token in list(self._waiting):
            msg = "the connection was lost: what was asked may have been done or not"
            self._fail(token, LogError(msg))

    async def _returned(self) -> None:
        self._trouble = None
        self._connected.set()

    async def close(self) -> None:
        """End the connection and all tasks of it."""
        self._closed = True
        async with self._connecting:
            await self._drop()
        for token in list(self._waiting):
            self._fail(token, LogError("the log was closed"))

    def reopen(self) -> None:
        """Allow connecting, at first and again after `close`."""
        self._closed = False

    def abandon(self) -> None:
        """Forget the connection without touching it."""
        client, self._client = self._client, None
        if client is not None:
            door.forget(client)
        self._waiting.clear()
        self._asked_about.clear()
        self._closed = True

    # Asking ------------------------------------------------------------------

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float,
    ) -> Message:
        """Ask, and wait for the answer.

        Raises:
            LogUnreachableError: nobody heard it.
            LogRefusedError: no right to ask.
            ChunkTooLargeError: more bytes than the server takes.
            LogError: not answered: it may have been heard or not.
        """
        deadline = time.monotonic() + timeout
        client = await self.connect(timeout)
        token = secrets.token_hex(8)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        self._asked_about[token] = subject
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.001)):
                reply = f"{self._inbox}.{token}"
                await self._send(client, subject, data, reply=reply, headers=headers)
                answer = await future
        except TimeoutError:
            raise LogError(f"no answer within {timeout:g} s: {subject}") from None
        finally:
            self._waiting.pop(token, None)
            self._asked_about.pop(token, None)
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen, whoever was cancelled meanwhile
        if answer.status == _NO_RESPONDERS and not answer.data:
            raise LogUnreachableError(
                f"nobody listens to {subject}: no leader, or none"
            )
        return answer

    async def _send(
        self,
        client: "Client",
        subject: str,
        data: bytes,
        *,
        reply: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if len(data) > self.max_payload:
            msg = (
                f"{len(data)} bytes; the server takes {self.max_payload} (max_payload)"
            )
            raise ChunkTooLargeError(msg)
        try:
            given = dict(headers) if headers else None
            await client.publish(subject, data, reply=reply, headers=given)
        except (OSError, door.library_errors()) as error:
            raise LogError(f"could not be sent: {type(error).__name__}") from None

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Say something; raises ``LogError`` where it was not even sent."""
        client = self._client
        if client is None or not client.is_connected:
            raise LogUnreachableError("not connected")
        await self._send(client, subject, data, reply=reply)

    async def gather(self, subject: str, data: bytes, timeout: float) -> list[Message]:
        """Ask, and collect all answers up to the one that says it was the last.

        Raises:
            LogError: nobody answers.
        """
        found: list[Message] = []
        over = asyncio.Event()

        async def take(message: Message) -> None:
            if message.status in _END_OF_BATCH:
                if message.status in ("408", "503"):
                    found.clear()
                    found.append(message)
                over.set()
            else:
                found.append(message)

        inbox = f"_INBOX.{secrets.token_hex(11)}"
        stop = await self.subscribe(inbox, take)
        try:
            await self.publish(subject, data, inbox)
            async with asyncio.timeout(timeout):
                await over.wait()
        except TimeoutError:
            raise LogError(f"no answer within {timeout:g} s: {subject}") from None
        finally:
            await stop()
        if found and found[0].status:
            raise LogUnreachableError(f"{subject}: {describe(found[0]) or 'nobody'}")
        return found

    async def subscribe(
        self, subject: str, heard: Callable[[Message], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        """Listen; what is returned ends that.

        Raises:
            LogError: there is no connection to listen on.
        """
        client = await self.connect()

        async def convert(found: Any) -> None:
            await heard(_message(found))

        try:
            subscription = await client.subscribe(subject, cb=convert)
        except (OSError, door.library_errors()) as error:
            raise LogError(f"cannot listen: {type(error).__name__}") from None

        async def stop() -> None:
            # A connection that is gone listens no longer anyway.
            with suppress(OSError, door.library_errors()):
                await subscription.unsubscribe()

        return stop

    async def _answered(self, found: Any) -> None:
        token = found.subject.rpartition(".")[2]
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_result(_message(found))

    def _fail(self, token: str, error: Exception) -> None:
        future = self._waiting.get(token)
        if future is not None and not future.done():
            future.set_exception(error)


def _message(found: Any) -> Message:
    headers = {
        str(getattr(name, "value", name)): value
        for name, value in (found.headers or {}).items()
    }
    return Message(found.subject, found.reply, found.data, headers)


def _is_refusal(error: Exception) -> bool:
    words = str(error).casefold()
    return "authorization" in words or "authentication" in words
