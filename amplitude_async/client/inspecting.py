"""Tells an emulator on this machine what a client rejected or dropped by itself.

For a person who watches the emulator's page: such events never come there. It is on
where ``AMPLITUDE_INSPECT`` names an emulator when the client starts, and only then.
What is told is a copy, in the background and bounded: no event waits for it, nothing
is counted by it, and what cannot be told is left out.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from amplitude_async.delivery.clock import Clock
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.delivery.outcome import DeliveryStatus, Outcome
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.delivery.tasks import is_theirs, spawn
from amplitude_async.encoding import DROP, ValuePolicy, to_json
from amplitude_async.shown import shown
from amplitude_async.storage.base import Record

__all__ = ["VARIABLE", "Inspector"]

VARIABLE: Final = "AMPLITUDE_INSPECT"
"""The environment variable that names an emulator, as http://127.0.0.1:8080."""

MOST_NOTES: Final = 500
_PATH: Final = "/_emulator/local"
_MOST_BYTES: Final = 4_000_000
_REQUEST_BYTES: Final = 500_000
_EVENT_BYTES: Final = 30_000
_REASON: Final = 500
# So long the first waits for company.
_LINGER: Final = 0.02
_REQUEST_SECONDS: Final = 2.0
# Whoever does not answer is left alone for a while.
_QUIET_SECONDS: Final = 5.0
_LAST_SECONDS: Final = 0.5
_IN_ONE_GO: Final = 20
_POLICY: Final = ValuePolicy(max_bytes=_EVENT_BYTES)


class _Note(NamedTuple):
    """An event that goes nowhere, and why."""

    source: object
    outcome: Outcome
    wall: float


class Inspector:
    """Hears of events that end before any server sees them, and tells an emulator.

    Args:
        vendor: whose events they are: ``"amplitude"`` or ``"mparticle"``.
        clock: says when.
        reporter: told once what is wrong with the variable, or with the emulator.
    """

    def __init__(self, vendor: str, clock: Clock, reporter: Reporter) -> None:
        self._vendor = vendor
        self._clock = clock
        self._reporter = reporter
        self._url = ""
        self._notes: deque[_Note] = deque()
        self._bytes = 0
        self._quiet_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._pid = 0

    def begin(self) -> bool:
        """Look whether somebody wants to be told, as a client does that starts."""
        given = os.environ.get(VARIABLE, "").strip()
        url = _emulator_at(given)
        if given and url is None:
            self._reporter.warning(
                "inspect",
                "%s names %s, which is not tried: give the address of an emulator on "
                "this machine, such as http://127.0.0.1:8080",
                VARIABLE,
                _told_of(given),
            )
        self._url = url or ""
        return url is not None

    # Hearing -----------------------------------------------------------------

    def note(self, source: object, outcome: Outcome) -> None:
        """Note an event, or its record, where no server had a say in its end."""
        if not _is_ours(outcome) or INTERCEPTION.capturing:
            return
        self._move_in()
        size = len(source.body) if isinstance(source, Record) else 0
        if len(self._notes) >= MOST_NOTES or self._bytes + size > _MOST_BYTES:
            return
        if self._clock.now() < self._quiet_until:
            return
        self._notes.append(_Note(source, outcome, self._clock.wall()))
        self._bytes += size
        if self._task is None or self._task.done():
            # Without a loop, as at the interpreter's end, there is nobody to tell it.
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop()
                self._task = spawn(self._tell_all(), "inspecting")

    def _move_in(self) -> None:
        """Forget what belongs to a parent process, or to a loop that was closed."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._notes.clear()
            self._bytes, self._task = 0, None
        elif self._task is not None and self._task.get_loop().is_closed():
            self._task = None

    # Telling -----------------------------------------------------------------

    async def _tell_all(self) -> None:
        pid = os.getpid()
        try:
            await asyncio.sleep(_LINGER)
            limit = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
            # A session of its own: the client's goes to the vendor, by a proxy perhaps.
            async with aiohttp.ClientSession(timeout=limit, trust_env=False) as session:
                # A forked child has a copy of this task; its notes are the parent's.
                while self._notes and os.getpid() == pid:
                    await self._tell(session, await self._next_body())
        except BaseException as error:  # whatever it is, nobody else may feel it
            if not is_theirs(error):
                raise
            self._give_up(error)

    async def _next_body(self) -> bytes:
        """Take what fits into one request, in turns with others."""
        told: list[dict[str, Any]] = []
        size = 0
        while self._notes and size < _REQUEST_BYTES:
            note = self._notes.popleft()
            if isinstance(note.source, Record):
                self._bytes -= len(note.source.body)
            event, length = _event_of(note.source)
            size += length
            told.append(self._report(note, event))
            if len(told) % _IN_ONE_GO == 0:
                await asyncio.sleep(0)
        return to_json({"events": told})

    def _report(self, note: _Note, event: dict[str, Any]) -> dict[str, Any]:
        outcome = note.outcome
        reason = outcome.message[:_REASON]
        return {
            "vendor": self._vendor,
            "state": str(outcome.status),
            "reason": f"{outcome.reason}: {reason}" if outcome.reason else reason,
            "at": note.wall,
            "event": event,
        }

    async def _tell(self, session: aiohttp.ClientSession, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        url = self._url + _PATH
        async with session.post(
            url, data=body, headers=headers, allow_redirects=False
        ) as response:
            if response.status != 200:
                msg = f"it answered {response.status}"
                raise OSError(msg)

    def _give_up(self, error: BaseException) -> None:
        self._notes.clear()
        self._bytes = 0
        self._quiet_until = self._clock.now() + _QUIET_SECONDS
        self._reporter.warning(
            "inspect",
            "the emulator that %s names was not told of rejected and dropped events: "
            "%s",
            VARIABLE,
            shown(error),
        )

    async def end(self) -> None:
        """Tell what is left, but not for long."""
        task = self._task
        if task is None or task.done() or self._pid != os.getpid():
            return
        if task.get_loop() is not asyncio.get_running_loop():
            return  # the one it ran on was closed
        try:
            await asyncio.wait({task}, timeout=_LAST_SECONDS)
        finally:
            task.cancel()
            self._notes.clear()

    def __repr__(self) -> str:
        return f"<Inspector {self._vendor} {len(self._notes)} to tell>"


def _is_ours(outcome: Outcome) -> bool:
    """Say whether an event ended without a server's having seen it."""
    if outcome.status is DeliveryStatus.DROPPED:
        return True
    if outcome.status is not DeliveryStatus.REJECTED:
        return False
    return not outcome.code or (outcome.refused and not outcome.attempts)


def _emulator_at(given: str) -> str | None:
    """Return the base URL of an emulator on this machine; None: it is none."""
    try:
        parts = urlsplit(given)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    plain = parts.scheme == "http" and parts.path in ("", "/")
    bare = not (parts.query or parts.fragment or "@" in parts.netloc)
    if not (plain and bare and _is_loopback(host)):
        return None
    where = f"[{host}]" if ":" in host else host
    return f"http://{where}:{port}" if port else f"http://{where}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _told_of(given: str) -> str:
    """Name an address without what may be secret in it."""
    try:
        parts = urlsplit(given)
        host = parts.hostname
    except ValueError:
        host = None
    return f"{shown(parts.scheme)} on {shown(host)}" if host else "no address"


# What an event looks like ----------------------------------------------------


def _event_of(source: object) -> tuple[dict[str, Any], int]:
    """Give an event as JSON values, and about how many bytes it comes to."""
    for read in _READERS:
        # Values of theirs, and classes.
        with contextlib.suppress(Exception, asyncio.CancelledError):
            event = read(source)
            size = len(to_json(event))
            return (event, size) if size <= _EVENT_BYTES else (_stub(event, size), 500)
    return {}, 2


def _read_record(source: Any) -> Any:
    return json.loads(source.body)


def _wire_of(source: Any) -> Any:
    wire = _POLICY.convert(source.to_wire(), "event", [])
    if not isinstance(wire, dict):
        msg = "no fields"
        raise TypeError(msg)
    return wire


def _fields_of(source: Any) -> dict[str, Any]:
    fields = source if isinstance(source, dict) else source.__dict__
    return dict(_converted(fields))


def _converted(fields: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in list(fields.items()):
        if value is None or not isinstance(name, str):
            continue
        made = _POLICY.convert(value, name, [])
        yield name, shown(value) if made is DROP else made


_READERS: Final[tuple[Callable[[Any], Any], ...]] = (
    _read_record,
    _wire_of,
    _fields_of,
)


def _stub(event: dict[str, Any], size: int) -> dict[str, Any]:
    """Say of an event what it is, where it is too large to be shown."""
    kept: dict[str, Any] = {"not_shown": f"{size:,} bytes"}
    for name in ("event_type", "user_id", "device_id"):
        value = event.get(name)
        if isinstance(value, str):
            kept[name] = value[:200]
    return kept
