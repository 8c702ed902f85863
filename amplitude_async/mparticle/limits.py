"""The limits of the service on names, values and counts.

Numbers from mParticle's documentation, Default Service Limits. Beyond them the server
cuts names, and may fail the whole request for the rest.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

from amplitude_async.mparticle.models.batch import Batch, events_of
from amplitude_async.mparticle.models.envelope import BaseEvent, Envelope
from amplitude_async.shown import shown

__all__ = ["MAX_NAME", "LimitMode", "check_limits", "truncate_names"]

LimitMode: TypeAlias = Literal["error", "truncate", "off"]
"""What to do about what exceeds a limit: report it, cut names, or nothing."""

MAX_NAME: Final = 256
MAX_VALUE: Final = 4096
MAX_ATTRIBUTES: Final = 100
MAX_LIST: Final = 1000
MAX_LIST_ENTRY: Final = 512
MAX_ACTION: Final = 100

# Names of events that the server cuts.
_CUT_NAMES: Final = ("event_name", "screen_name")


def check_limits(batch: Batch, mode: LimitMode = "error") -> list[str]:
    """List what in a batch exceeds the limits of the service.

    Args:
        batch: Not changed.
        mode: With ``truncate`` names that `truncate_names` cuts are no problem; with
            ``off`` nothing is.

    Returns:
        One sentence for each problem: where, what and how much. Empty if all is well.
    """
    if mode == "off":
        return []
    problems = list(_user_problems(batch.user_attributes or {}))
    for index, event in enumerate(events_of(batch)):
        if isinstance(event, BaseEvent):
            where = f"events[{index}]"
            problems += _event_problems(event, where)
            if mode == "error":
                problems += _name_problems(event, where)
    return problems


def truncate_names(batch: Batch) -> Batch:
    """Cut names of events, screens and event attributes as the server would.

    Returns:
        The batch itself where nothing is too long, otherwise a copy.
    """
    events = events_of(batch)
    cut = [_with_short_names(event) for event in events]
    if all(after is before for before, after in zip(events, cut, strict=True)):
        return batch
    return batch.model_copy(update={"events": cut})


def _with_short_names(event: Envelope) -> Envelope:
    if not isinstance(event, BaseEvent):
        return event
    changes: dict[str, Any] = {
        name: value[:MAX_NAME]
        for name, value in _cut_names(event)
        if len(value) > MAX_NAME
    }
    attributes = event.custom_attributes or {}
    if any(len(key) > MAX_NAME for key in attributes):
        changes["custom_attributes"] = {
            key[:MAX_NAME]: value for key, value in attributes.items()
        }
    return event.model_copy(update=changes) if changes else event


def _cut_names(event: BaseEvent) -> Iterator[tuple[str, str]]:
    for name in _CUT_NAMES:
        value = event.__dict__.get(name)
        if value is not None:
            yield name, value


# The texts are made for problems alone: nearly every batch has none.


def _name_problems(event: BaseEvent, where: str) -> Iterator[str]:
    for name, value in _cut_names(event):
        if len(value) > MAX_NAME:
            yield _too_long(f"{where}.{name}", value, MAX_NAME)
    for key in event.custom_attributes or {}:
        if len(key) > MAX_NAME:
            path = f"the name {shown(key, 40)} in {where}.custom_attributes"
            yield _too_long(path, key, MAX_NAME)


def _event_problems(event: BaseEvent, where: str) -> Iterator[str]:
    attributes = event.custom_attributes or {}
    path = f"{where}.custom_attributes"
    if len(attributes) > MAX_ATTRIBUTES:
        yield _too_many(path, len(attributes), MAX_ATTRIBUTES, "attributes")
    for key, value in attributes.items():
        if isinstance(value, str) and len(value) > MAX_VALUE:
            yield _too_long(f"{path}[{shown(key, 40)}]", value, MAX_VALUE)
    # Only push messages have one.
    action = event.__dict__.get("action_identifier") or ""
    if len(action) > MAX_ACTION:
        yield _too_long(f"{where}.action_identifier", action, MAX_ACTION)


def _user_problems(attributes: dict[str, Any]) -> Iterator[str]:
    where = "user_attributes"
    if len(attributes) > MAX_ATTRIBUTES:
        yield _too_many(where, len(attributes), MAX_ATTRIBUTES, "attributes")
    for key, value in attributes.items():
        path = f"{where}[{shown(key, 40)}]"
        if len(key) > MAX_NAME:
            yield _too_long(f"the name of {path}", key, MAX_NAME)
        if isinstance(value, list):
            yield from _list_problems(value, path)
        elif isinstance(value, str) and len(value) > MAX_VALUE:
            yield _too_long(path, value, MAX_VALUE)


def _list_problems(entries: list[Any], path: str) -> Iterator[str]:
    if len(entries) > MAX_LIST:
        yield _too_many(path, len(entries), MAX_LIST, "entries")
    for index, entry in enumerate(entries):
        if isinstance(entry, str) and len(entry) > MAX_LIST_ENTRY:
            yield _too_long(f"{path}[{index}]", entry, MAX_LIST_ENTRY)


def _too_long(path: str, value: str, limit: int) -> str:
    return f"{path} has {len(value)} characters, the limit is {limit}: shorten it"


def _too_many(path: str, count: int, limit: int, what: str) -> str:
    return f"{path} has {count} {what}, the limit is {limit}: send fewer"
