"""A file or standard input, read in a thread of its own, line by line."""

import asyncio
import gzip
import hashlib
import io
import sys
import threading
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

__all__ = ["LONGEST_LINE", "Batches", "Raw", "Reader", "Source", "raw_lines"]

LONGEST_LINE: Final = 4_000_000
"""Bytes of the longest line: an event has at most a million on the wire."""

_BLOCK: Final = 1 << 18
_AHEAD: Final = 3
_DIGESTED: Final = 1 << 20
_SHOWN: Final = 200
_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_BOM: Final = b"\xef\xbb\xbf"


class Raw(NamedTuple):
    """One line of the input, or one row that goes over several."""

    number: int
    """Its number, from 1; of a row that of its first line."""
    text: bytes
    """As it stands there, without the line's end."""
    position: int
    """How many bytes of the file had been read at that time."""
    row: list[str] | None = None
    """Its cells, where the input is CSV."""
    problem: str = ""
    """Why it cannot be looked at."""


Batches = Iterator[list[Raw]]
"""Lines as they come in, in lists."""


class Source:
    """An input with what tells it from others.

    Args:
        path: the file; None for standard input.
        name: what to call standard input, so that it can be resumed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is an archive of several files.
    """

    def __init__(self, path: Path | None, name: str | None = None) -> None:
        self.path = path
        self.identity: bytes | None = None
        """What ids and checkpoints are made for: the same bytes are the same file."""
        self.size = 0
        self._file: BinaryIO
        if path is None:
            # Not sys.stdin: at the interpreter's end, a thread that still reads from
            # it would hold the lock that its flush wants.
            self._file = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
            if name is not None:
                self.identity = hashlib.blake2b(
                    name.encode(errors="replace"), digest_size=16, person=b"name"
                ).digest()
        else:
            self._file = path.open("rb")
            if self._file.seekable():
                self.identity = _digest(self._file)
                self.size = self._file.tell()
                self._file.seek(0)
        self._prefix = (self.identity or b"").hex()
        self._unpacked = self._unpack()

    def _unpack(self) -> io.BufferedIOBase:
        assert isinstance(self._file, io.BufferedReader)  # noqa: S101 - of a binary file
        head = self._file.peek(4)[:4]
        if head.startswith(_ZIP):
            self._file.close()
            msg = (
                "it is a zip archive: unpack it, as in `unzip -p FILE | "
                "amplitude-async send - --name FILE --checkpoint FILE.checkpoint`"
            )
            raise ValueError(msg)
        if head.startswith(_GZIP):
            return gzip.GzipFile(fileobj=self._file)
        return self._file

    def derived_id(self, raw: Raw) -> str | None:
        """Make the insert_id of a line that has none: the same in each run.

        Of a file it is of all its bytes and the number of the line; of standard input,
        of which the bytes are not known before, of its name, the number and the line.
        """
        if self.identity is None:
            return None
        if self.path is not None:
            # What all ids of a file share is compressed away, and random text is not.
            return f"{self._prefix}-{raw.number}"
        text = b"%d:%b" % (raw.number, raw.text)
        return hashlib.blake2b(text, digest_size=16, key=self.identity).hexdigest()

    @property
    def is_resumable(self) -> bool:
        """True where a later run can tell that this is the same input."""
        return self.identity is not None

    def lines(self) -> Batches:
        """Read the lines, in lists as they come."""
        return raw_lines(self._read, self._position)

    def _read(self, size: int) -> bytes:
        try:
            return self._unpacked.read1(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            msg = f"the gzip file is cut off or damaged, get it anew ({error})"
            raise EOFError(msg) from None

    def _position(self) -> int:
        return self._file.tell() if self.size else 0

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._file.close()


def _digest(file: BinaryIO) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_DIGESTED):
        digest.update(block)
    return digest.digest()


def raw_lines(read: Callable[[int], bytes], position: Callable[[], int]) -> Batches:
    """Cut what is read into lines, in one list for each block.

    Args:
        read: gives up to so many bytes, as soon as there are any; none at the end.
        position: says how far in the file that was.
    """
    number, rest, skips = 0, b"", False
    while block := read(_BLOCK):
        *whole, rest = (rest + block).split(b"\n")
        found: list[Raw] = []
        at = position()
        for text in whole:
            if skips:
                skips = False
                continue
            number += 1
            found.append(_line(number, text, at))
        if len(rest) > LONGEST_LINE:
            if not skips:
                number += 1
                found.append(_line(number, rest, at))
            # The end of such a line is not looked at, however far away it is.
            rest, skips = b"", True
        if found:
            yield found
    if rest and not skips:
        yield [_line(number + 1, rest, position())]


def _line(number: int, text: bytes, position: int) -> Raw:
    if len(text) > LONGEST_LINE:
        problem = f"the line has more than {LONGEST_LINE:,} bytes: send less"
        return Raw(number, text[:_SHOWN], position, None, problem)
    if number == 1:
        text = text.removeprefix(_BOM)
    return Raw(number, text.removesuffix(b"\r"), position)


class Reader:
    """Reads ahead in a thread, so that a slow pipe holds up no request."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._found: deque[list[Raw] | Exception | None] = deque()
        self._ahead = threading.Semaphore(_AHEAD)
        self._closed = False
        self._came = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # A daemon: nobody can end a read of a pipe that nobody writes to.
        self._thread = threading.Thread(
            target=self._read, name="amplitude-async send", daemon=True
        )

    async def lists(self) -> AsyncGenerator[list[Raw], None]:
        """Give the lines as they come.

        Raises:
            OSError: they cannot be read any further.
            EOFError: a packed file ends too early, or is damaged.
        """
        self._thread.start()
        while True:
            while not self._found:
                self._came.clear()
                await self._came.wait()
            found = self._found.popleft()
            self._ahead.release()
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            yield found

    def close(self) -> None:
        """Let the thread end, as soon as it has read what it reads."""
        self._closed = True
        self._ahead.release()

    def _read(self) -> None:
        try:
            for batch in self._batches:
                self._put(batch)
                if self._closed:
                    return
            self._put(None)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._put(error)

    def _put(self, found: list[Raw] | Exception | None) -> None:
        self._ahead.acquire()
        self._found.append(found)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._came.set)
