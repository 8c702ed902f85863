"""What came back over the network, within bounds and fit for a log line."""

import re
import zlib

import aiohttp

from amplitude_async.delivery.endpoint import excerpt
from amplitude_async.delivery.reporting import named
from amplitude_async.redaction import Redactor

__all__ = ["MAX_ANSWER_BYTES", "describe_fault", "read_bounded", "unpack"]

MAX_ANSWER_BYTES = 128 * 1024
# zlib's 32: the header says whether it is gzip or deflate.
_EITHER_WBITS = 32 + zlib.MAX_WBITS
# A name of a scheme is short: a long word is not looked through from each letter.
_URL = re.compile(r"(\w{1,20}://)(?:[^/@\s]*@)?([^/?\s'\"]*)[^\s'\"]*")


async def read_bounded(answer: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Read at most 128 KiB of an answer's body, as it is on the wire.

    Returns:
        The bytes, and whether that is all of them.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            return b"".join(chunks)[:MAX_ANSWER_BYTES], False
    return b"".join(chunks), True


def unpack(body: bytes, encoding: str) -> bytes:
    """Decompress at most 128 KiB of a body that came compressed, unasked.

    Where that fails, words about it take its place.
    """
    encoding = encoding.strip().lower()
    if not body or encoding in {"", "identity"}:
        return body
    if encoding in {"gzip", "x-gzip", "deflate"}:
        inflater = zlib.decompressobj(_EITHER_WBITS)
        try:
            return inflater.decompress(body, MAX_ANSWER_BYTES)
        except zlib.error:
            pass
    return b"(unreadable, Content-Encoding: %b)" % excerpt(encoding).encode()


def describe_fault(fault: BaseException, redact: Redactor | None = None) -> str:
    """Say in words what the network did; of an address no more than scheme and host.

    Paths, queries and user names may be secrets.
    """
    if isinstance(fault, aiohttp.InvalidURL):
        return type(fault).__name__
    # Before it is cut: the half of a secret is no secret that one would find.
    text = (redact or Redactor())(named(fault))
    return excerpt(_URL.sub(r"\1\2", text))
