"""Faults: what a server can do to a request besides answering it well."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from .amplitude_api import AmplitudeApi, error_body, silenced_body, throttled_body
from .judgement import JsonObject
from .presets import fields_of
from .reading import text_of
from .records import ReceivedRequest

__all__ = ["Fault", "HangUp"]

HangUp = Literal["before", "during", "after"]
# More than anybody waits for or counts, and few enough digits to be written anywhere.
_LARGEST = 10**15
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """One disturbance, fired for the next requests it matches.

    A fault without `status` leaves the verdict to the judge: events are stored as
    usual. One that answers 2xx stores them as well, any other status stores nothing
    unless `ingest` is set. What the judge refuses is never stored.
    """

    status: int | None = None
    """Status to answer; None: as judged."""

    _: KW_ONLY

    body: bytes | str | JsonObject | Callable[[ReceivedRequest], JsonObject] | None = (
        field(default=None, repr=False)
    )
    """Body to answer; None: as judged, or an error body that fits the status."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Response headers, over the usual ones."""

    delay: float = 0.0
    """Seconds to wait before answering; infinity: until the emulator stops."""

    hang_up: HangUp | None = None
    """Close the connection: "before" the body is read, "during" the answer (half
    of the body is sent) or "after" storing the events, without an answer."""

    count: int | None = 1
    """How often it fires; None: for ever."""

    rate: float = 1.0
    """Probability that it fires for a request it matches."""

    path: str | None = None
    """Only for requests to this path."""

    ingest: bool = False
    """Store the accepted events although the answer denies it or is cut."""

    when: Callable[[ReceivedRequest], object] | None = None
    """Only for requests this is true of; its `status` is still the judge's. Before
    a "before" hang-up the body is unread and the request has no events."""

    trickle: float = 0.0
    """Seconds between the bytes of the body."""

    endless: bool = False
    """Send blanks after the body until the client or the emulator gives up."""

    requests_per_second: float | None = None
    """Only for requests beyond so many a second: those go on to the next fault."""

    at_once: int | None = None
    """Only for requests beyond so many under way: those go on to the next fault."""

    name: str | None = None
    """Name in records; taken from the other fields where absent."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be acted on."""
        _check_status(self.status)
        _check_seconds("delay", self.delay)
        _check_seconds("trickle", self.trickle)
        _check_count(self.count)
        if not _is_number(self.rate) or not 0 < self.rate <= 1:
            raise _bad("rate", self.rate, "give a probability above 0, up to 1")
        _check_room(self.requests_per_second, self.at_once)
        if self.hang_up not in (None, "before", "during", "after"):
            raise _bad("hang_up", self.hang_up, 'use "before", "during" or "after"')
        path = self.path
        if path is not None and not (isinstance(path, str) and path.startswith("/")):
            raise _bad("path", path, 'start it with "/"')
        if self.name is not None and not isinstance(self.name, str):
            raise _bad("name", self.name, "give text")
        for flag, value in (("ingest", self.ingest), ("endless", self.endless)):
            if not isinstance(value, bool):
                raise _bad(flag, value, "use true or false")
        if self.when is not None and not callable(self.when):
            raise _bad("when", self.when, "give a function of the request")
        if not (
            self.body is None
            or isinstance(self.body, (bytes, str, dict))
            or callable(self.body)
        ):
            raise _bad("body", self.body, "give bytes, text, a dict or a function")
        _check_body(self.body)
        _check_headers(self.headers)
        _check_together(self)

    @property
    def label(self) -> str:
        """The name, or one that says what the fault does."""
        if self.name:
            return self.name
        if self.hang_up:
            return f"hang up {self.hang_up}"
        if self.status is not None:
            return f"status {self.status}"
        return "delay" if self.delay else "fault"

    def stores(self) -> bool:
        """Return whether the accepted events are stored when this fault fires."""
        if self.hang_up == "after" or self.ingest:
            return True
        if self.hang_up:
            return False
        return self.status is None or HTTPStatus.OK <= self.status < 300

    @classmethod
    def preset(cls, name: str, /, **changes: Any) -> Fault:
        """Return the fault of this name, such as "outage", with changes to its fields.

        Raises:
            ValueError: there is none of this name, or a field cannot be acted on.
        """
        return cls(**{**fields_of(name), **changes})

    @classmethod
    def throttle(
        cls,
        user_ids: Collection[str] = (),
        device_ids: Collection[str] = (),
        *,
        eps_threshold: int = 10,
        count: int | None = 1,
    ) -> Fault:
        """Answer 429 to requests with one of these ids, naming ids and events."""
        if not _is_count(eps_threshold):
            raise _bad("eps_threshold", eps_threshold, "give 1 or more")
        ids = _ids(user_ids=user_ids, device_ids=device_ids)

        def body(request: ReceivedRequest) -> JsonObject:
            sent = {
                field: {
                    name: eps_threshold + number
                    for name, number in _numbers(request, field, ids[field]).items()
                }
                for field in ids
            }
            return throttled_body(
                eps_threshold=eps_threshold,
                events=_indexes(request, ids),
                users=sent["user_id"],
                devices=sent["device_id"],
            )

        return cls(
            429, body=body, when=_holds_one_of(ids), count=count, name="throttle"
        )

    @classmethod
    def quota(
        cls,
        user_ids: Collection[str] = (),
        device_ids: Collection[str] = (),
        *,
        count: int | None = 1,
    ) -> Fault:
        """Answer 429 to requests with one of these ids: their day's quota is used."""
        ids = _ids(user_ids=user_ids, device_ids=device_ids)
        # Amplitude Batch API, section "Limits".
        quota = 500_000

        def body(request: ReceivedRequest) -> JsonObject:
            sent = {
                field: {
                    name: quota + number
                    for name, number in _numbers(request, field, ids[field]).items()
                }
                for field in ids
            }
            return throttled_body(
                eps_threshold=1000,
                events=_indexes(request, ids),
                quota_users=sent["user_id"],
                quota_devices=sent["device_id"],
            )

        return cls(429, body=body, when=_holds_one_of(ids), count=count, name="quota")

    @classmethod
    def silenced(cls, device_ids: Collection[str], *, count: int | None = 1) -> Fault:
        """Answer 400 to requests with one of these devices: they are silenced."""
        ids = _ids(device_ids=device_ids)

        def body(request: ReceivedRequest) -> JsonObject:
            return silenced_body(
                _numbers(request, "device_id", ids["device_id"]),
                _indexes(request, ids),
                eps_threshold=100,
            )

        return cls(
            400, body=body, when=_holds_one_of(ids), count=count, name="silenced"
        )

    @classmethod
    def too_large(cls, max_events: int, *, count: int | None = None) -> Fault:
        """Answer 413 to every request with more events, or batches, than that."""
        if not _is_count(max_events, least=0):
            raise _bad("max_events", max_events, "give a number of events")
        return cls(
            413,
            when=lambda request: (
                len(request.events) + len(request.batches) > max_events
            ),
            count=count,
            name="too_large",
        )

    @classmethod
    def invalid_key(cls, *, count: int | None = 1) -> Fault:
        """Answer 400 as to a key that Amplitude does not know."""
        body = error_body(400, "Invalid API key")
        return cls(400, body=body, count=count, name="invalid_key")

    @classmethod
    def server_error(cls, status: int = 500, *, count: int | None = 1) -> Fault:
        """Answer a server error with a JSON body."""
        return cls(status, count=count, name="server_error")

    @classmethod
    def html(cls, status: int = 502, *, count: int | None = 1) -> Fault:
        """Answer with the HTML page of a proxy in front of the API."""
        title = f"{status} {_phrase(status)}"
        page = (
            f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
            f"<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
        )
        headers = {"Content-Type": "text/html"}
        return cls(status, body=page, headers=headers, count=count, name="html")

    @classmethod
    def busy(
        cls,
        *,
        requests_per_second: float | None = None,
        at_once: int | None = None,
        status: int = 503,
        retry_after: int | None = None,
    ) -> Fault:
        """Take so many requests and turn the others away at once, until cleared.

        What is taken meets the faults behind this one: add a delay there, and requests
        are under way for as long.

        Args:
            requests_per_second: taken a second; after a quiet one as many at a time.
            at_once: taken while others are under way, those included.
            status: answered to the others.
            retry_after: whole seconds, told to the others as Retry-After.
        """
        if requests_per_second is None and at_once is None:
            raise _bad("busy", None, "give requests_per_second, at_once or both")
        # With any other status the events would be stored, or the client sent away.
        if type(status) is not int or not 400 <= status <= 599:
            raise _bad("status", status, "give an error status such as 503 or 429")
        headers = {}
        if retry_after is not None:
            if not _is_count(retry_after, least=0):
                raise _bad("retry_after", retry_after, "give whole seconds, 0 or more")
            headers["Retry-After"] = str(retry_after)
        return cls(
            status,
            headers=headers,
            requests_per_second=requests_per_second,
            at_once=at_once,
            count=None,
            name="busy",
        )

    def answer(
        self,
        request: ReceivedRequest,
        judged: JsonObject | None,
        error: Callable[[int, str], JsonObject] = AmplitudeApi.error_body,
    ) -> object:
        """Return the body to send: bytes, text, a JSON object, None for no body.

        Args:
            request: the request as it was judged.
            judged: the body of the judge's answer.
            error: makes the vendor's error body of a status and its phrase.
        """
        if callable(self.body):
            return self.body(request)
        if self.body is not None:
            return self.body
        if self.status is None or self.status == request.status:
            return judged
        return error(self.status, _phrase(self.status))


def _check_together(fault: Fault) -> None:
    if fault.hang_up in ("before", "after"):
        for name, given in (
            ("status", fault.status is not None),
            ("body", fault.body is not None),
            ("trickle", fault.trickle > 0),
            ("endless", fault.endless),
        ):
            if given:
                remedy = f"leave it out, hang_up={fault.hang_up!r} sends no answer"
                raise _bad(name, getattr(fault, name), remedy)
    if fault.hang_up == "before" and fault.ingest:
        raise _bad("ingest", fault.ingest, 'use hang_up="after" to store the events')
    if fault.hang_up == "during" and fault.endless:
        raise _bad("endless", fault.endless, "leave it out, or leave out hang_up")


def _check_body(body: object) -> None:
    if not isinstance(body, dict):
        return
    try:
        json.dumps(body)
    except (TypeError, ValueError, RecursionError):
        raise _bad("body", body, "give what can be written as JSON") from None


def _check_status(status: object) -> None:
    if status is None:
        return
    # 1xx is no final answer: a client would go on waiting for one.
    if type(status) is not int or not 200 <= status <= 599:
        raise _bad("status", status, "give an HTTP status from 200 to 599")


def _check_count(count: object) -> None:
    if count is not None and not _is_count(count):
        raise _bad("count", count, "give 1 or more, or None for ever")


def _check_room(per_second: object, at_once: object) -> None:
    if per_second is not None and not (
        _is_number(per_second) and 0 < per_second < math.inf  # type: ignore[operator]
    ):
        remedy = "give requests a second, above 0, or None for any number"
        raise _bad("requests_per_second", per_second, remedy)
    if at_once is not None and not _is_count(at_once):
        raise _bad("at_once", at_once, "give 1 or more, or None for any number")


def _check_seconds(name: str, value: object) -> None:
    if not _is_number(value) or not value >= 0:  # type: ignore[operator]
        raise _bad(name, value, "give seconds, 0 or more")


def _check_headers(headers: object) -> None:
    if not isinstance(headers, Mapping):
        raise _bad("headers", headers, "give a mapping of names to text")
    for name, value in headers.items():
        named = isinstance(name, str) and _FIELD_NAME.fullmatch(name)
        if not named or not isinstance(value, str) or not value.isprintable():
            raise _bad(f"headers[{name!r}]", value, "give plain text on one line")


def _is_number(value: object) -> bool:
    # An int may be longer than a float can be, which no wait and no rate is.
    if type(value) is int:
        return -_LARGEST <= value <= _LARGEST
    return type(value) is float and not math.isnan(value)


def _is_count(value: object, least: int = 1) -> bool:
    return type(value) is int and least <= value <= _LARGEST


def _bad(name: str, value: object, remedy: str) -> ValueError:
    return ValueError(f"fault {name} is {_shortly(value)}: {remedy}")


def _shortly(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an int of more digits than Python writes
        return f"a {type(value).__name__}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _ids(
    *, user_ids: Collection[str] = (), device_ids: Collection[str] = ()
) -> dict[str, frozenset[str]]:
    for name, ids in (("user_ids", user_ids), ("device_ids", device_ids)):
        if isinstance(ids, str) or not isinstance(ids, Collection):
            raise _bad(name, ids, "give a list of ids")
        if not all(isinstance(one, str) for one in ids):
            raise _bad(name, ids, "give ids as text")
    if not user_ids and not device_ids:
        raise _bad("ids", (), "name at least one user or device id")
    return {"user_id": frozenset(user_ids), "device_id": frozenset(device_ids)}


def _holds_one_of(
    ids: Mapping[str, Collection[str]],
) -> Callable[[ReceivedRequest], bool]:
    def holds(request: ReceivedRequest) -> bool:
        return bool(_indexes(request, ids))

    return holds


def _indexes(request: ReceivedRequest, ids: Mapping[str, Collection[str]]) -> list[int]:
    return [
        index
        for index, event in enumerate(request.events)
        if any(text_of(event.get(field)) in wanted for field, wanted in ids.items())
    ]


def _numbers(
    request: ReceivedRequest, field: str, wanted: Collection[str]
) -> dict[str, int]:
    """Count the events of each wanted id, in order of first appearance."""
    numbers: dict[str, int] = {}
    for event in request.events:
        name = text_of(event.get(field))
        if name in wanted:
            numbers[name] = numbers.get(name, 0) + 1
    return numbers
