"""The one door to the client library: how it is imported, connected and ended."""

import asyncio
import importlib
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.nats.access import Access
from amplitude_async.shown import shown

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["connect", "end", "forget", "hang_up", "library_errors", "new_client"]

CONNECT_TIMEOUT = 2
PING_INTERVAL = 2
RECONNECT_WAIT = 0.1
# A chunk or a few: a publish waits until that much has been written.
PENDING_BYTES = 8 * 1024 * 1024
# Tasks of the library that `close` cancels and does not wait for.
_TASKS = ("_reading_task", "_ping_interval_task", "_flusher_task", "_reconnection_task")

Callback = Callable[[], Awaitable[None]]


def new_client() -> "Client":
    """Make a client that is not connected.

    Raises:
        ConfigurationError: the library is not installed.
    """
    try:
        module = importlib.import_module("nats.aio.client")
    except ImportError as error:
        msg = (
            "JetStreamLog needs the library nats-py, which is not installed: "
            "pip install 'amplitude-async[nats]'"
        )
        raise ConfigurationError(msg) from error
    client: Client = module.Client()
    return client


def library_errors() -> type[Exception]:
    """Give the base of all errors of the library."""
    errors: type[Exception] = importlib.import_module("nats.errors").Error
    return errors


async def connect(
    client: "Client",
    access: Access,
    *,
    failed: Callable[[Exception], Awaitable[None]],
    left: Callback,
    returned: Callback,
) -> None:
    """Connect, and try again without end: the caller sets the limit."""
    options: dict[str, Any] = {}
    if access.user:
        options["user"] = str(access.user)
        options["password"] = str(access.password)
    if access.token:
        options["token"] = str(access.token)
    if access.credentials is not None:
        text = await asyncio.to_thread(_read, access.credentials)
        raw = importlib.import_module("nats.aio.client").RawCredentials
        options["user_credentials"] = raw(text)
    if access.tls is not None:
        options["tls"] = access.tls
    elif access.encrypted:
        # It reads certificates from files.
        options["tls"] = await asyncio.to_thread(ssl.create_default_context)
    await client.connect(
        servers=[str(server) for server in access.servers],
        error_cb=failed,
        disconnected_cb=left,
        reconnected_cb=returned,
        name="amplitude_async",
        connect_timeout=CONNECT_TIMEOUT,
        # A float is what it takes, whatever its annotation says.
        reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]
        max_reconnect_attempts=-1,
        ping_interval=PING_INTERVAL,
        max_outstanding_pings=2,
        pending_size=PENDING_BYTES,
        **options,
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a path, or text of one
            return file.read()
    except OSError as error:
        msg = (
            f"credentials={shown(path)} cannot be read: {error.strerror}: "
            "name a .creds file"
        )
        raise ConfigurationError(msg) from error


async def end(client: "Client") -> None:
    """Close a client, and wait until none of its tasks is left."""
    tasks = _tasks(client)
    try:
        await client.close()
    finally:
        tasks |= _tasks(client)
        tasks.discard(asyncio.current_task())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A client that was still trying to connect takes itself for closed already.
        carrier = hang_up(client)
        if carrier is not None:
            await carrier.wait_closed()


def hang_up(client: "Client") -> Any:
    """Close the socket of a client that is about to try another one.

    The library forgets it where a server accepts a connection and says nothing on it.
    """
    carrier = getattr(client, "_transport", None)
    if carrier:
        carrier.close()
        return carrier
    return None


def _tasks(client: "Client") -> set[Any]:
    tasks = {getattr(client, name, None) for name in _TASKS}
    return {task for task in tasks if isinstance(task, asyncio.Task)}


def forget(client: "Client") -> None:
    """Make a client of another process, or of a closed loop, touch its socket no more.

    Its transport would close the socket when it is collected: that is the parent's
    business, so the transport forgets it first.
    """
    carrier = getattr(client, "_transport", None)
    for name in ("_io_writer", "_bare_io_writer"):
        writer = getattr(carrier, name, None)
        transport = getattr(writer, "transport", None)
        if transport is not None and getattr(transport, "_sock", None) is not None:
            transport._sock = None  # noqa: SLF001 - or its __del__ would close it
