"""What the Amplitude server checks, checked before an event is accepted."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from amplitude_async.amplitude.config import Config
from amplitude_async.amplitude.context import defaults_of
from amplitude_async.amplitude.encoder import (
    EventDefaults,
    InsertIds,
    encode_event,
    encode_fields,
)
from amplitude_async.amplitude.events import GROUP_IDENTIFY, Event
from amplitude_async.amplitude.leniency import explain
from amplitude_async.client.destination import Reduced, Refusal
from amplitude_async.delivery.reporting import Reporter
from amplitude_async.encoding import (
    Loss,
    ValuePolicy,
    encodable_text,
    unix_ms,
    with_members,
)
from amplitude_async.redaction import without_values
from amplitude_async.shown import kind_of, shown
from amplitude_async.storage.base import Record

__all__ = ["FORBIDDEN_IDS", "AmplitudeDoor"]

DEFAULT_MIN_ID_LENGTH = 5
# Longer ids are looked at no further: they are none that the server refuses by name.
LONG_ID = 4_096

# Causes of warnings that are kept apart, and lines for one event.
MOST_PATHS = 100
MOST_TOLD = 5

_INDEX: Final = re.compile(r"\[\d+\]")

# Amplitude HTTP V2 API, section "Device IDs and User IDs": values that are refused.
FORBIDDEN_IDS = frozenset(
    {
        "",
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


class AmplitudeDoor:
    """Checks and encodes events, each exactly once."""

    def __init__(self, config: Config, max_bytes: int, reporter: Reporter) -> None:
        self._min_length = config.min_id_length or DEFAULT_MIN_ID_LENGTH
        self._max_bytes = max_bytes
        self._short_bytes = max_bytes // 2
        self._policy = ValuePolicy(
            max_string=config.truncate_strings, max_bytes=max_bytes
        )
        self._reporter = reporter
        self._strict = config.strict
        self._cut = f"cut to {config.truncate_strings} characters"
        self._paths: set[str] = set()
        self._context = defaults_of(config)
        self._defaults = self._context
        self.renew_ids()

    def renew_ids(self) -> None:
        """Make insert ids that differ from all before, as a forked child must."""
        self._new_id = InsertIds()

    def fill_context(self, *, enabled: bool) -> None:
        """Fill in library, plan and ingestion metadata, or leave them out."""
        self._defaults = self._context if enabled else EventDefaults()

    def insert_id(self, event: Event) -> str:
        """The event's own insert_id, or a new one."""
        given = event.__dict__.get("insert_id")
        return given if isinstance(given, str) and given else self._new_id()

    def stamped(self, event: Event, wall: float) -> Event:
        """The event with an insert_id and a time, where it has none as yet."""
        missing: dict[str, Any] = {}
        given = event.__dict__
        if not given.get("insert_id"):
            missing["insert_id"] = self._new_id()
        if given.get("time") is None:
            missing["time"] = unix_ms(wall)
        return event.model_copy(update=missing) if missing else event

    def admit(
        self, event: Event, record_id: int, wall: float
    ) -> Record | Reduced | Refusal:
        """Encode an event, or say why the server would refuse it."""
        try:
            return self._admit(event, record_id, wall)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # theirs
            # A value, or a subclass, that harms whoever looks at it.
            why = f"looking at it raised {kind_of(error)}"
            return Refusal(f"the event cannot be read ({why}): make it with Event(...)")

    def _admit(
        self, event: Event, record_id: int, wall: float
    ) -> Record | Reduced | Refusal:
        try:
            body, insert_id, event, losses = encode_event(
                event, self._policy, self._defaults, insert_id=self._new_id, wall=wall
            )
        except ValidationError as error:
            return Refusal(explain(error))
        # Nearly every event has a usable user id and no bad device id: looked at here,
        # so that the slow check, which finds the words, runs only for a problem.
        user_id, device_id = event.user_id, event.device_id
        for loss in losses:
            if loss.too_large:
                return Refusal(
                    f"{loss.path} {loss.reason}; a request takes at most "
                    f"{self._max_bytes} bytes: send less, or set use_batch=True"
                )
            if loss.path in {"user_id", "device_id"}:
                return Refusal(f"{loss.path} {loss.reason}: use an id that is text")
        if not self._usable(user_id) or (device_id and not self._usable(device_id)):
            problem = self._check_ids(event)
            if problem:
                return Refusal(problem)
        if not event.event_type.strip():
            return Refusal("event_type is empty: name the event")
        if len(body) > self._max_bytes:
            return Refusal(
                f"the event has {len(body)} bytes, a request takes at most "
                f"{self._max_bytes}: send less, or set use_batch=True"
            )
        if losses:
            refusal = self._judge(event.event_type, losses)
            if refusal is not None:
                return refusal
        record = Record(
            record_id,
            body,
            user_id or device_id or _group_identity(event),
            user_id,
            device_id,
            insert_id,
            wall,
        )
        if losses:
            return Reduced(record, sum(loss.count for loss in losses))
        return record

    def _judge(self, event_type: str, losses: Sequence[Loss]) -> Refusal | None:
        """Tell of losses, or refuse the event where none is allowed."""
        if self._strict:
            # What is cut was asked to be cut.
            left_out = [loss for loss in losses if loss.reason != self._cut]
            if left_out:
                named = "; ".join(f"{one.path}: {one.reason}" for one in left_out[:5])
                return Refusal(f"{named}: leave it out or convert it")
        self.tell(event_type, losses)
        return None

    def tell(self, event_type: str, losses: Sequence[Loss]) -> None:
        """Warn of what an event had to go without, of each path once a minute."""
        for loss in losses[:MOST_TOLD]:
            path = _INDEX.sub("[]", loss.path)
            # Names of properties may come from outside: their number is bounded.
            if len(self._paths) < MOST_PATHS:
                self._paths.add(path)
            cause = f"lost {path:.200}" if path in self._paths else "lost properties"
            self._reporter.warning(
                cause,
                "event %s lost %s: %s",
                shown(event_type),
                loss.path,
                loss.reason,
                count=loss.count,
            )

    def admit_fields(
        self,
        event_type: str,
        fields: Mapping[str, Any],
        record_id: int,
        wall: float,
        *,
        insert_id: str | None = None,
    ) -> Record | None:
        """Encode an event from keyword fields; None where it must become a model.

        An ``insert_id`` that is given needs no escape in JSON; without one it is new.
        """
        user_id, device_id = fields.get("user_id"), fields.get("device_id")
        if (
            type(user_id) is not str
            or not self._min_length <= len(user_id) <= LONG_ID
            or user_id.lower() in FORBIDDEN_IDS
            or (device_id is not None and not self._usable(device_id))
            or event_type.isspace()
            or not event_type
        ):
            return None
        body = encode_fields(event_type, fields, self._policy)
        if body is None or len(body) > self._short_bytes:
            return None
        insert_id, members = insert_id or self._new_id(), self._defaults.members
        if "time" not in fields:
            members = b',"time":%d%b' % (unix_ms(wall), members)
        members = b',"insert_id":"%b"%b' % (insert_id.encode(), members)
        body = with_members(body, members)
        return Record(record_id, body, user_id, user_id, device_id, insert_id, wall)

    def _usable(self, value: object) -> bool:
        return (
            isinstance(value, str)
            and self._min_length <= len(value) <= LONG_ID
            and value.lower() not in FORBIDDEN_IDS
        )

    def _check_ids(self, event: Event) -> str:
        """Name what is wrong with the ids; nothing where the server takes them."""
        given = {
            name: value
            for name, value in (
                ("user_id", event.user_id),
                ("device_id", event.device_id),
            )
            if value
        }
        for name, value in given.items():
            if len(value) <= LONG_ID and value.lower() in FORBIDDEN_IDS:
                return (
                    f"{name}={shown(value)} is a value the server refuses: leave it "
                    "out or use a real id"
                )
        if event.event_type == GROUP_IDENTIFY:
            return ""
        if not given:
            return "user_id and device_id are missing: pass one of them"
        short = {n: v for n, v in given.items() if len(v) < self._min_length}
        if not short:
            return ""
        name, value = next(iter(short.items()))
        problem = (
            f"{name} {shown(value)} has {len(value)} characters, the server wants "
            f"{self._min_length}: set min_id_length={len(value)}"
        )
        if len(short) == len(given):
            return problem
        self._reporter.warning(
            "short_id", "the server drops an id: %s", without_values(problem)
        )
        return ""


def _group_identity(event: Event) -> str:
    groups = (event.groups or {}).items()
    # The encoder leaves out what is no text; what tells the groups apart stays text.
    return encodable_text("/".join(f"{kind}:{name}" for kind, name in groups))
