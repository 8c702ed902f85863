"""Which events an answer of Amplitude's names, and what it says of each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from .judgement import JsonObject
from .reading import text_of

__all__ = ["named_problems"]

_FIELD_LISTS: Mapping[str, str] = MappingProxyType(
    {
        "events_with_missing_fields": "is missing",
        "events_with_invalid_fields": "is invalid",
        "events_with_invalid_id_lengths": "is too short",
    }
)
_EVENT_LISTS: Mapping[str, str] = MappingProxyType(
    {
        "silenced_events": "its device is silenced",
        "throttled_events": "its user or device is throttled",
    }
)
_QUOTAS: Mapping[str, str] = MappingProxyType(
    {
        "user_id": "exceeded_daily_quota_users",
        "device_id": "exceeded_daily_quota_devices",
    }
)
_LONGEST_NAME = 80


def named_problems(body: object, events: Sequence[JsonObject]) -> dict[int, str]:
    """Return why each event that an answer names was not taken, by its index.

    Args:
        body: the answer, whatever a fault has made of it.
        events: those of the request.
    """
    if not isinstance(body, Mapping):
        return {}
    problems: dict[int, str] = {}
    for index, why in _named(body):
        if type(index) is int and 0 <= index < len(events):
            problems.setdefault(index, why)
    spent = {field: _ids(body.get(key)) for field, key in _QUOTAS.items()}
    for index in problems:
        for field, ids in spent.items():
            if text_of(events[index].get(field)) in ids:
                problems[index] = f"the daily quota of its {field} is exceeded"
    return problems


def _named(body: Mapping[object, object]) -> Iterator[tuple[object, str]]:
    for key, why in _FIELD_LISTS.items():
        fields = body.get(key)
        if isinstance(fields, Mapping):
            for field, indexes in fields.items():
                for index in indexes if isinstance(indexes, list) else ():
                    yield index, f"{str(field)[:_LONGEST_NAME]} {why}"
    for key, why in _EVENT_LISTS.items():
        indexes = body.get(key)
        for index in indexes if isinstance(indexes, list) else ():
            yield index, why


def _ids(found: object) -> frozenset[str]:
    if not isinstance(found, Mapping):
        return frozenset()
    # No event without an id is anybody's.
    return frozenset(one for one in found if isinstance(one, str) and one)
