"""What a request says about whoever sent it: address, program, language.

All of it but the peer's address comes from the client, so it is bounded, and what does
not look as it should is left out. Nothing here raises.
"""

import re
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final

__all__ = ["address_of", "forwarded_address", "host_of", "language_of", "text_of"]

# Characters of a program's name or of a path that are kept.
_MOST_TEXT: Final = 512
_LONGEST_ADDRESS: Final = 64
_LONGEST_TAG: Final = 35  # what RFC 5646 tells programs to have room for
_TAG: Final = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._\-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?"
)
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"


def address_of(text: object) -> str | None:
    """Read an IP address, with a port or in brackets or not; None where it is none.

    An IPv4 address in IPv6's clothes, as a socket for both shows it, comes out as what
    it is.
    """
    if type(text) is not str or len(text) > _LONGEST_ADDRESS:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        if ":" not in text:
            inet_pton(AF_INET, text)
            return text
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        return None
    if packed.startswith(_MAPPED):
        return inet_ntop(AF_INET, packed[12:])
    return inet_ntop(AF_INET6, packed)


def forwarded_address(values: Sequence[bytes], hops: int) -> str | None:
    """Read the address that the outermost trusted proxy saw.

    Args:
        values: of the headers X-Forwarded-For, in their order.
        hops: how many proxies of one's own stand in front; each adds one entry.

    Returns:
        The entry so many from the right, or None where it is missing or none.
    """
    left = hops
    for value in reversed(values):
        # From the right: how much a stranger has written to the left costs nothing.
        entries = value.rsplit(b",", left)
        if len(entries) >= left:
            return address_of(entries[-left].strip().decode("latin-1"))
        left -= len(entries)
    return None


def language_of(value: bytes) -> str | None:
    """Read the first language of an Accept-Language header; None for any."""
    first = value[: 2 * _LONGEST_TAG].partition(b",")[0].partition(b";")[0]
    tag = first.strip().decode("latin-1")
    if len(tag) > _LONGEST_TAG or _TAG.fullmatch(tag) is None:
        return None
    return tag


def host_of(value: bytes) -> str | None:
    """Read a Host header, without what no name of a host has in it."""
    if len(value) > _MOST_TEXT or _HOST.fullmatch(value) is None:
        return None
    return value.decode("ascii").lower()


def text_of(value: bytes | str) -> str:
    """Read text that a client made up: printable, and at most 512 characters."""
    cut = value[:_MOST_TEXT]
    text = cut.decode("utf-8", "replace") if isinstance(cut, bytes) else cut
    if text.isprintable():
        return text
    return "".join(filter(str.isprintable, text))
