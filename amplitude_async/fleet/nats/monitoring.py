"""What servers say over HTTP: whether an acknowledged chunk is on disk."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.redaction import masked_url
from amplitude_async.shown import shown

__all__ = ["NOT_SYNCED", "durability", "read_monitoring"]

LIMIT: Final = 2.0
NOT_SYNCED: Final = "replicated, not synced"


def read_monitoring(urls: str | Sequence[str] | None) -> tuple[str, ...]:
    """Read addresses of the servers' monitoring; none where none are given.

    Raises:
        ConfigurationError: one is no address.
    """
    given = urls.split(",") if isinstance(urls, str) else list(urls or ())
    for url in given:
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            msg = (
                f"monitoring= has {shown(masked_url(str(url)))}, which is no address: "
                "write 'http://host:8222', the http_port of each server"
            )
            raise ConfigurationError(msg)
    return tuple(masked_url(url.strip().rstrip("/")) for url in given)


async def durability(urls: Iterable[str], needed: int) -> tuple[bool, list[str]]:
    """Ask servers whether they sync before they acknowledge.

    Args:
        urls: of their monitoring.
        needed: how many servers keep a chunk.

    Returns:
        True where as many as that do, and words about those that do not.
    """
    urls = list(urls)
    if not urls:
        msg = (
            f"{NOT_SYNCED}: nobody was asked whether servers have `sync_interval: "
            "always`; give monitoring= the http_port of each"
        )
        return False, [msg]
    timeout = aiohttp.ClientTimeout(total=LIMIT)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        answers = await asyncio.gather(*(_ask(session, url) for url in urls))
    warnings: list[str] = []
    synced: set[str] = set()
    for url, answer in zip(urls, answers, strict=True):
        where = str(getattr(url, "shown", url))
        config = answer.get("config") or {}
        if not answer:
            warnings.append(f"{NOT_SYNCED}: {where} does not answer")
        elif config.get("sync_always") is True:
            synced.add(str(answer.get("server_id", url)))
        else:
            warnings.append(
                f"{NOT_SYNCED}: the server at {where} has no `sync_interval: always` "
                "in its jetstream block; add it"
            )
    if len(synced) < needed and not warnings:
        warnings.append(
            f"{NOT_SYNCED}: {len(synced)} of {needed} servers were asked; give "
            "monitoring= all of them"
        )
    return not warnings, warnings


async def _ask(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    try:
        async with session.get(f"{url}/jsz?config=true") as response:
            found = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
