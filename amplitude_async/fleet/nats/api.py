"""Questions to JetStream itself, asked again while a leader is being elected."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from amplitude_async.exceptions import (
    ChunkTooLargeError,
    LogError,
    LogFullError,
    LogRefusedError,
)
from amplitude_async.fleet.nats.wire import Message, Wire

__all__ = [
    "ATTEMPT",
    "CERTAIN",
    "LIMIT",
    "NOT_FOUND",
    "PAUSE",
    "Api",
    "ApiError",
    "Stored",
    "failure",
    "stored",
    "timestamp",
]

T = TypeVar("T")

# As long as an election takes as a rule; the worst ones take twice that.
LIMIT: Final = 5.0
ATTEMPT: Final = 1.5
PAUSE: Final = 0.1
# It was not done, and will not be by being asked again.
CERTAIN: Final = (ChunkTooLargeError, LogFullError, LogRefusedError)

NOT_FOUND: Final = (10014, 10037, 10043, 10059)
WRONG_SEQUENCE: Final = (10071, 10164)
# The server could not do it just now, and did not.
TRANSIENT: Final = (10008, 10158, 10202)
NO_PEERS: Final = 10005
FULL: Final = (10023, 10028, 10047)
NOT_STORED: Final = 10077
TOO_LARGE: Final = 10054
NO_MESSAGE: Final = 10057
WRONG_STREAM: Final = 10060


class ApiError(LogError):
    """JetStream says no; `code` is its own number for the reason."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"{words} ({code})")
        self.code = code
        self.transient = code in TRANSIENT or (code == NO_PEERS and "offline" in words)
        """True where it was not done now, and may be in a moment."""


class Stored(NamedTuple):
    """A message of a stream."""

    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    at: float
    """Seconds since the epoch, by the clock of the server that stored it."""


def failure(answer: Mapping[str, Any]) -> LogError | None:
    """Say what an answer's error means; None where it has none."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return None
    code = int(error.get("err_code", 0))
    words = str(error.get("description", "JetStream failed"))
    if code in FULL or (code == NOT_STORED and "maximum" in words):
        msg = f"the log is full: {words} ({code}); give it more max_bytes, or drain it"
        return LogFullError(msg)
    if code == TOO_LARGE:
        return ChunkTooLargeError(f"{words} ({code})")
    if code == WRONG_STREAM:
        msg = f"{words} ({code}): run `amplitude-async relay setup`"
        return LogRefusedError(msg)
    return ApiError(code, words)


def _raise_failure(answer: Mapping[str, Any]) -> None:
    error = failure(answer)
    if error is not None:
        raise error


def _is_final(error: LogError) -> bool:
    """Say whether to ask again would bring the same answer."""
    if isinstance(error, ApiError):
        return not error.transient
    return isinstance(error, CERTAIN)


def timestamp(text: str) -> float:
    """Read a time as servers write it, with nanoseconds."""
    whole, _, rest = text.rstrip("Z").partition(".")
    # Python 3.11 reads them only where there are at most six digits.
    return datetime.fromisoformat(whole + "+00:00").timestamp() + float(
        f"0.{rest or 0}"
    )


def stored(message: Message) -> Stored:
    """Read a message that a direct get brought."""
    headers = message.headers
    return Stored(
        int(headers["Nats-Sequence"]),
        headers["Nats-Subject"],
        message.data,
        headers,
        timestamp(headers["Nats-Time-Stamp"]),
    )


class Api:
    """Asks JetStream, and reads and writes single messages of streams.

    Args:
        wire: the connection.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def call(
        self, subject: str, body: Any = None, *, limit: float = LIMIT
    ) -> dict[str, Any]:
        """Ask something that may be asked twice.

        Raises:
            ApiError: the answer is no.
            LogError: there is none within the limit.
        """
        data = b"" if body is None else json.dumps(body).encode()
        attempt = min(ATTEMPT, limit)

        async def ask() -> dict[str, Any]:
            answer = await self._wire.request(
                f"$JS.API.{subject}", data, timeout=attempt
            )
            _raise_failure(answer.json)
            return answer.json

        return await self._until_answered(ask, limit)

    async def _until_answered(self, ask: Callable[[], Awaitable[T]], limit: float) -> T:
        """Ask again while there is no answer, or none but that there is no leader."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while True:
            try:
                return await ask()
            except LogError as error:
                over = self._wire.closed or loop.time() + PAUSE >= deadline
                if over or _is_final(error):
                    raise
            await asyncio.sleep(PAUSE)

    async def last(
        self, stream: str, subject: str, *, limit: float = LIMIT
    ) -> Stored | None:
        """Read the last message of a subject, from the stream's leader."""
        return await self._get(stream, {"last_by_subj": subject}, limit=limit)

    async def next(self, stream: str, subject: str, start: int) -> Stored | None:
        """Read the first message of a subject from a sequence number on."""
        return await self._get(stream, {"seq": start, "next_by_subj": subject})

    async def _get(
        self, stream: str, body: dict[str, Any], *, limit: float = LIMIT
    ) -> Stored | None:
        try:
            answer = await self.call(f"STREAM.MSG.GET.{stream}", body, limit=limit)
        except ApiError as error:
            if error.code in NOT_FOUND:
                return None
            raise
        found = answer["message"]
        return Stored(
            found["seq"],
            found["subject"],
            base64.b64decode(found.get("data", "")),
            _headers(base64.b64decode(found.get("hdrs", ""))),
            timestamp(found["time"]),
        )

    async def put(self, subject: str, body: bytes, expected: int) -> int | None:
        """Write a record if the last one of its subject is the expected one.

        Returns:
            Its sequence number; None where the last one is another.

        Raises:
            LogError: it is not known.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}

        async def ask() -> int | None:
            message = await self._wire.request(subject, body, headers, timeout=ATTEMPT)
            try:
                _raise_failure(message.json)
            except ApiError as error:
                if error.code in WRONG_SEQUENCE:
                    return None
                raise
            return int(message.json["seq"])

        return await self._until_answered(ask, LIMIT)

    async def write(self, subject: str, body: bytes) -> int:
        """Write a record over whatever is there."""
        message = await self._wire.request(subject, body, timeout=ATTEMPT)
        _raise_failure(message.json)
        return int(message.json["seq"])

    async def latest(self, stream: str, subjects: list[str]) -> list[Stored]:
        """Read the last message of many subjects, from any replica: maybe not new."""
        body = json.dumps({"multi_last": subjects, "batch": 1_000}).encode()
        return await self._direct(stream, body)

    async def batch(
        self, stream: str, subject: str, start: int, *, most: int, max_bytes: int
    ) -> list[Stored]:
        """Read messages of a subject from a sequence number on, from any replica."""
        body = {
            "seq": start,
            "next_by_subj": subject,
            "batch": most,
            "max_bytes": max_bytes,
        }
        return await self._direct(stream, json.dumps(body).encode())

    async def _direct(self, stream: str, body: bytes) -> list[Stored]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LIMIT
        while True:
            try:
                found = await self._wire.gather(
                    f"$JS.API.DIRECT.GET.{stream}", body, ATTEMPT
                )
            except LogError:
                if self._wire.closed or loop.time() + PAUSE >= deadline:
                    raise
                await self._wire.connect()
                await asyncio.sleep(PAUSE)
            else:
                return [stored(message) for message in found]

    async def delete(self, stream: str, sequence: int) -> None:
        """Take one message away; one that is not there is no error."""
        body = {"seq": sequence, "no_erase": True}
        try:
            await self.call(f"STREAM.MSG.DELETE.{stream}", body)
        except ApiError as error:
            if error.code not in NOT_FOUND and error.code != NO_MESSAGE:
                raise

    async def info(self, stream: str, **body: Any) -> dict[str, Any] | None:
        """Ask for a stream; None where there is none of that name."""
        try:
            return await self.call(f"STREAM.INFO.{stream}", body or None)
        except ApiError as error:
            if error.code in NOT_FOUND:
                return None
            raise


def _headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode().split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name: value.strip() for name, _, value in pairs}
