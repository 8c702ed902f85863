"""The one door to the client library: how it is imported, connected and forgotten."""

import asyncio
import importlib
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.postgres.access import Access, Host
from amplitude_async.fleet.postgres.credentials import Credentials, read_credentials

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["connect", "end", "forget", "library"]

APPLICATION: Final = "amplitude_async"


def library() -> Any:
    """Load the client library.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("asyncpg")
    except ImportError as error:
        msg = (
            "PostgresLog needs the library asyncpg, which is not installed: "
            "pip install 'amplitude-async[postgres]'"
        )
        raise ConfigurationError(msg) from error


async def connect(access: Access, host: Host, timeout: float) -> "Connection":
    """Connect to one host; raises what the library raises, or the socket."""
    who = await asyncio.to_thread(read_credentials, access, host)
    if who.tls is not None:
        try:
            return await _connect(access, host, who, encrypted=True, timeout=timeout)
        except ConnectionError as error:
            # The library's own is of this very class where the server has no TLS.
            if not who.may_be_plain or type(error) is not ConnectionError:
                raise
    return await _connect(access, host, who, encrypted=False, timeout=timeout)


async def _connect(
    access: Access, host: Host, who: Credentials, *, encrypted: bool, timeout: float
) -> "Connection":
    name, port = host
    return await library().connect(
        str(access.dsn),
        host=name,
        port=port,
        user=who.user,
        password=str(who.password),
        ssl=who.tls if encrypted else False,
        timeout=timeout,
        # A pooler hands each transaction to any server: what is kept by name on one
        # is not on the next.
        statement_cache_size=0,
        server_settings={"application_name": APPLICATION},
    )


def forget(connection: "Connection") -> None:
    """Let go the socket of another process, or of a closed loop, without a word on it.

    The loop must not be told either: what it watches may be the parent's as well.
    """
    transport = getattr(connection, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    with suppress(AttributeError):
        # No public way leaves the socket alone; and the collector would end it.
        connection._aborted = True  # noqa: SLF001
    if found is None or found.fileno() < 0:
        return
    inner = getattr(found, "_sock", None)
    if not isinstance(inner, socket.socket):
        _blind(found.fileno())
        return
    # This process's own copy of it: the parent's stays as it is.
    os.close(inner.detach())
    if transport is not None and getattr(transport, "_sock", None) is inner:
        transport._sock = None  # noqa: SLF001 - or it would complain when collected


def _blind(number: int) -> None:
    """Let a descriptor lead to a socket that is connected to nothing."""
    with suppress(OSError), socket.socket() as nothing:
        os.dup2(nothing.fileno(), number, inheritable=False)


async def end(connection: "Connection", timeout: float) -> None:
    """Close politely, or at once where the server does not listen."""
    try:
        async with asyncio.timeout(timeout):
            await connection.close()
    except (Exception, asyncio.CancelledError):  # the library's own, and the socket's
        connection.terminate()
        raise
