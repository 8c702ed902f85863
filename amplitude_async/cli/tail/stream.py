"""Server-sent events, as they come from a running emulator."""

import json
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Final, NamedTuple

__all__ = ["FeedError", "Message", "messages"]

_LARGEST: Final = 64_000_000


class FeedError(Exception):
    """What comes is no feed of an emulator."""


class Message(NamedTuple):
    """One message of a feed."""

    what: str
    data: Any


async def messages(chunks: AsyncIterable[bytes]) -> AsyncGenerator[Message, None]:
    """Read messages out of what arrives; comments and what is unknown are left out.

    Raises:
        FeedError: a message has no end, or is no JSON.
    """
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        for text in whole:
            found = _message(text)
            if found is not None:
                yield found
        if len(rest) > _LARGEST:
            msg = f"a message of more than {_LARGEST:,} bytes: this is no emulator"
            raise FeedError(msg)


def _message(text: bytes) -> Message | None:
    what, data = "message", []
    for line in text.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            what = value.decode(errors="replace")
        elif name == b"data":
            data.append(value)
    if not data:
        return None
    try:
        return Message(what, json.loads(b"\n".join(data)))
    except (ValueError, RecursionError):
        msg = "a message that is no JSON: this is no emulator"
        raise FeedError(msg) from None
