"""What Amplitude's documentation says of one event.

Pure. What it leaves open is judged strictly. The notes are for people: they name event
and field, and never repeat a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .judgement import JsonObject

__all__ = ["Findings", "check_event"]

# Amplitude HTTP V2 API, section "Device IDs and User IDs"; the empty string is in that
# list as well, but an event that has no other id lacks one.
_FORBIDDEN_IDS = frozenset(
    {
        "anonymous",
        "nil",
        "none",
        "null",
        "n/a",
        "na",
        "undefined",
        "unknown",
        "00000000-0000-0000-0000-000000000000",
        "{}",
        "lmy47d",
        "0",
        "-1",
    }
)
_ID_FIELDS = ("user_id", "device_id")
_KINDS: Mapping[type, str] = MappingProxyType(
    {
        bool: "true or false",
        dict: "an object",
        float: "a fraction",
        int: "a number",
        list: "an array",
        str: "text",
    }
)

_MISSING_FIELD = "Request missing required field"
_INVALID_VALUES = "Invalid field values on some events"
_INVALID_LENGTH = "Invalid id length for user_id or device_id"

_ABSENT, _SHORT, _BAD, _GOOD = range(4)


class Findings:
    """Collects what is wrong with which events, by the keys of the 400 body."""

    __slots__ = ("_first", "invalid", "missing", "problems", "short")

    def __init__(self) -> None:
        self.missing: dict[str, list[int]] = {}
        self.invalid: dict[str, list[int]] = {}
        self.short: dict[str, list[int]] = {}
        self.problems: dict[int, str] = {}
        self._first = ""

    def add(
        self, found: dict[str, list[int]], field: str, index: int, why: str
    ) -> None:
        """Write down a problem of one event, among its like."""
        found.setdefault(field, []).append(index)
        self.problems.setdefault(index, f"{field} {why}")
        self._first = self._first or f"event {index}: {field} {why}"

    @property
    def note(self) -> str:
        """What is wrong with the first bad event, and how many more there are."""
        more = len(self.problems) - 1
        if more < 1:
            return self._first
        return f"{self._first}; {more:,} more {'is' if more == 1 else 'are'} refused"

    def body(self) -> JsonObject | None:
        """Return the body of the 400, None where nothing is wrong."""
        if not self.problems:
            return None
        if self.missing:
            error = _MISSING_FIELD
        elif self.invalid:
            error = _INVALID_VALUES
        else:
            error = _INVALID_LENGTH
        found = {
            "events_with_missing_fields": self.missing,
            "events_with_invalid_fields": self.invalid,
            "events_with_invalid_id_lengths": self.short,
        }
        return {"code": 400, "error": error} | {k: v for k, v in found.items() if v}


def check_event(
    event: JsonObject, index: int, min_length: int, findings: Findings
) -> JsonObject:
    """Return the event without its too short ids, which Amplitude removes."""
    _check_fields(event, index, findings)
    if event.get("event_type") != "$groupidentify":
        return _check_ids(event, index, min_length, findings)
    for field in _ID_FIELDS:
        if event.get(field) == "":
            _add_empty(findings, field, index)
    return event


def _check_fields(event: JsonObject, index: int, findings: Findings) -> None:
    event_type = event.get("event_type")
    if event_type is None or (type(event_type) is str and not event_type.strip()):
        findings.add(findings.missing, "event_type", index, "is missing or empty")
    elif type(event_type) is not str:
        why = f"must be text, not {_kind(event_type)}"
        findings.add(findings.invalid, "event_type", index, why)
    time = event.get("time")
    # type() and not isinstance(): true and false are no timestamps.
    if time is not None and type(time) is not int:
        why = f"must be whole milliseconds since 1970, not {_kind(time)}"
        findings.add(findings.invalid, "time", index, why)
    insert_id = event.get("insert_id")
    if insert_id is not None and type(insert_id) is not str:
        why = f"must be text, not {_kind(insert_id)}"
        findings.add(findings.invalid, "insert_id", index, why)


def _check_ids(
    event: JsonObject, index: int, min_length: int, findings: Findings
) -> JsonObject:
    found = {field: _weigh_id(event.get(field), min_length) for field in _ID_FIELDS}
    usable = False
    for field, weight in found.items():
        if weight == _BAD:
            findings.add(findings.invalid, field, index, _why_bad(event[field]))
        usable = usable or weight >= _BAD
    short = [field for field, weight in found.items() if weight == _SHORT]
    if not usable:
        for field in short:
            has = len(str(event[field]))
            why = (
                f"has {has} characters and needs {min_length}: lower "
                "options.min_id_length"
            )
            findings.add(findings.short, field, index, why)
        if not short:
            why = "is missing, and so is device_id"
            findings.add(findings.missing, "user_id", index, why)
            return event
    for field in _ID_FIELDS:
        if event.get(field) == "":
            _add_empty(findings, field, index)
    if usable and short:
        return {key: value for key, value in event.items() if key not in short}
    return event


def _weigh_id(value: object, min_length: int) -> int:
    if value is None or value == "":
        return _ABSENT
    if type(value) is int:
        # Numbers are taken as text: the real API measures their digits.
        value = str(value)
    if type(value) is not str or value.lower() in _FORBIDDEN_IDS:
        return _BAD
    return _GOOD if len(value) >= min_length else _SHORT


def _add_empty(findings: Findings, field: str, index: int) -> None:
    why = "is empty, which Amplitude forbids: leave it out"
    findings.add(findings.invalid, field, index, why)


def _why_bad(value: object) -> str:
    if type(value) in (str, int):
        return "is a word that Amplitude forbids as an id, such as unknown or 0"
    return f"must be text, not {_kind(value)}"


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null")
