"""Keeps what a test suite tracks in the process, and notes who tracked it.

Armed by an environment variable, so that the children of a test are guarded as well.
Nothing here may raise, wait or hold a lock: it runs inside of verbs, in any thread, and
in children forked at any moment.
"""

import json
import linecache
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from zlib import crc32

from amplitude_async.delivery.outcome import Outcome
from amplitude_async.storage.base import Record

__all__ = ["NetworkGuard", "Place", "guard_of", "place_of_caller", "speak_for"]

VARIABLE: Final = "AMPLITUDE_ASYNC_GUARD"
ALLOWED: Final = "AMPLITUDE_ASYNC_GUARD_ALLOW"
NOTES: Final = "caught.ndjson"

# Small lines: each is appended in one go, and none runs into another's.
_LONGEST_TEXT: Final = 300
_MOST_NOTES: Final = 1_000
# A key that stands in the line itself: where clients are made, or as long as keys are.
_KEYS: Final = re.compile(
    r"""((?:Amplitude|MParticle)\(\s*|api_(?:key|secret)\s*=\s*)"""
    r"""(["']).*?\2(\s*,\s*(["']).*?\4)?"""
)
_LONG: Final = re.compile(r"""(["'])(?=[^"']*\d)[0-9A-Za-z_-]{24,}\1""")
_PACKAGE: Final = str(Path(__file__).parents[1]) + os.sep
_LIBRARY: Final = str(Path(os.__file__).parent) + os.sep
_LIBRARIES: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Place(NamedTuple):
    """A line of somebody's code."""

    file: str
    line: int
    source: str


_speaking_for: ContextVar[Place | None] = ContextVar("speaking_for", default=None)


def speak_for(place: Place | None) -> None:
    """Do what follows in this context for a caller who waits on another thread."""
    _speaking_for.set(place)


def place_of_caller() -> Place | None:
    """Find the line that called the package, of the application if it can be.

    Where only libraries have called, as a framework's middleware, it is theirs.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way
    library: FrameType | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE):
            if not _is_library(file):
                return _place(frame)
            library = library or frame
        frame = frame.f_back
    return None if library is None else _place(library)


def _is_library(file: str) -> bool:
    if file.startswith(("<frozen ", _LIBRARY)):
        return True
    return any(folder in file for folder in _LIBRARIES)


def _place(frame: FrameType) -> Place:
    file, line, source = frame.f_code.co_filename, frame.f_lineno, ""
    # It may be code that was never in a file, or is not there any more.
    with suppress(Exception):
        source = linecache.getline(file, line, frame.f_globals).strip()
        if not file.startswith("<"):
            file = str(Path(file).absolute())
    return Place(file, line, _without_keys(source)[:_LONGEST_TEXT])


def _without_keys(source: str) -> str:
    return _LONG.sub("'***'", _KEYS.sub(r"\1'***'", source))


class NetworkGuard:
    """Lets events go to this machine only, and notes the others in a directory.

    Args:
        directory: where each process appends to one file what it has caught.
        allowed: hosts besides this machine that events may go to.
    """

    def __init__(self, directory: str, allowed: Iterable[str] = ()) -> None:
        self._file = str(Path(directory) / NOTES)
        self._allowed = frozenset(host.strip().lower() for host in allowed)
        self._hosts: dict[str, str | None] = {}
        self._noted: set[tuple[object, ...]] = set()
        self._unwritten: list[str] = []

    def verdict_on(self, url: str, record: Record) -> Outcome | None:
        """Reject an event that would leave this machine, and note it."""
        host = self._forbidden_host(url)
        if host is None:
            return None
        with suppress(Exception):
            self._note(host, _name_of(record.body))
        return Outcome.rejected(_why(host))

    def forbids(self, url: str) -> str | None:
        """Say why no request may go to an address; None: it may."""
        host = self._forbidden_host(url)
        return None if host is None else _why(host)

    def take(self) -> list[str]:
        """Give what this process could not write; from now on all is noted anew."""
        self._noted = set()
        taken, self._unwritten = self._unwritten, []
        return taken

    def _forbidden_host(self, url: str) -> str | None:
        """Name the host of an address where nothing may go to it."""
        try:
            return self._hosts[url]
        except KeyError:
            host = _host_of(url)
            free = host in self._allowed or _is_loopback(host)
            self._hosts[url] = found = None if free else host
            return found

    def _note(self, host: str, event: str) -> None:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
        place = _speaking_for.get() or place_of_caller() or Place("", 0, "")
        # A loop that tracks is one line of somebody's code.
        key = (test, place.file, place.line, host, event)
        if key in self._noted or len(self._noted) >= _MOST_NOTES:
            return
        self._noted.add(key)
        note = {
            "of": crc32(os.fsencode(test)) if test else None,
            "test": test[:_LONGEST_TEXT],
            **place._asdict(),
            "event": event[:_LONGEST_TEXT],
            "host": host[:_LONGEST_TEXT],
            "pid": os.getpid(),
        }
        line = json.dumps(note)
        try:
            _append(self._file, line + "\n")
        except Exception:  # noqa: BLE001 - the directory may be gone, the loop guarded
            self._unwritten.append(line)

    def __repr__(self) -> str:
        return f"<NetworkGuard of {self._file!r}>"


def guard_of(environment: Mapping[str, str]) -> NetworkGuard | None:
    """Make the guard that an environment asks for; None where it asks for none."""
    directory = environment.get(VARIABLE)
    if not directory:
        return None
    return NetworkGuard(directory, environment.get(ALLOWED, "").split())


def _append(file: str, text: str) -> None:
    target = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(target, text.encode())
    finally:
        os.close(target)


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return "an address that cannot be read"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _why(host: str) -> str:
    return (
        f"not sent to {host}: pytest is running, and its guard keeps events on this "
        "machine; take them with the fixture amplitude_events or with capture(), send "
        "them to the fixture amplitude_emulator, or mark the test with "
        "@pytest.mark.amplitude(live=True)"
    )


def _name_of(body: bytes) -> str:
    """Name the type of an encoded event, or those of a batch."""
    found: Any = json.loads(body)
    events = found.get("events")
    if not isinstance(events, list):
        return str(found.get("event_type", ""))
    return ", ".join(dict.fromkeys(map(_name_in_batch, events)))


def _name_in_batch(event: Mapping[str, Any]) -> str:
    data = event.get("data") or {}
    return str(data.get("event_name") or event.get("event_type", ""))
