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

__all__ = ["connect", "forget", "library"]

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
            return await _connect(access, host, who, timeout, encrypted=True)
        except ConnectionError as error:
            # The library's own is of this very class where the server has no TLS.
            if not who.may_be_plain or type(error) is not ConnectionError:
                raise
    return await _connect(access, host, who, timeout, encrypted=False)


async def _connect(
    access: Access, host: Host, who: Credentials, timeout: float, *, encrypted: bool
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

    Its number goes to a socket that is connected to nothing, so that who closes it
    later, as the collector does, closes nothing of the parent's and nothing new.
    """
    transport = getattr(connection, "_transport", None)
    found = None if transport is None else transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return
    with suppress(OSError), socket.socket() as nothing:
        os.dup2(nothing.fileno(), found.fileno(), inheritable=False)
    _mark_closed(connection)


def _mark_closed(connection: "Connection") -> None:
    """Keep the collector from ending it politely on the loop of now."""
    with suppress(AttributeError):
        connection._aborted = True  # noqa: SLF001 - no public way leaves the socket alone


async def end(connection: "Connection", timeout: float) -> None:
    """Close politely, or at once where the server does not listen."""
    try:
        async with asyncio.timeout(timeout):
            await connection.close()
    except (Exception, asyncio.CancelledError):  # the library's own, and the socket's
        connection.terminate()
        raise
