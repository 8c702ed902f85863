"""Lines become events, or a reason why they do not."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from pydantic import ValidationError
from pydantic_core import from_json

from amplitude_async.amplitude.events import Event
from amplitude_async.amplitude.leniency import explain
from amplitude_async.cli.send.exported import from_export, is_exported
from amplitude_async.cli.send.mapping import Columns, Place, fill
from amplitude_async.cli.send.moments import milliseconds
from amplitude_async.cli.send.rows import header_of
from amplitude_async.cli.send.source import Raw

__all__ = ["CsvLines", "JsonLines", "LineError", "Lines", "derived_id"]

Settings = Sequence[tuple[Place, Any]]


class LineError(ValueError):
    """A line that is no event: the message says why."""


class Lines(Protocol):
    """Makes events of lines."""

    def event(self, raw: Raw) -> Event | None:
        """Make an event of a line; None where it holds none.

        Raises:
            LineError: it cannot be made.
        """

    def skip(self, raw: Raw) -> None:
        """Pass a line over that an earlier run has sent."""


class JsonLines:
    """One event a line, in the words of the API, of our own, or of an export.

    Args:
        identity: what ids are made for; None leaves them to the client.
        settings: what events get that have none of their own.
    """

    def __init__(self, identity: bytes | None, settings: Settings = ()) -> None:
        self._identity = identity
        self._settings = settings

    def event(self, raw: Raw) -> Event | None:
        """Make an event of a line; None where it is blank."""
        if not raw.text.strip():
            return None
        return made(_json_fields(raw), raw, self._identity, self._settings)

    def skip(self, raw: Raw) -> None:
        """Pass a line over that an earlier run has sent."""


class CsvLines:
    """One event a row; the first row names the columns.

    Args:
        identity: what ids are made for; None leaves them to the client.
        given: what ``--map`` was given.
        settings: what events get that have none of their own.
        delimiter: what stands between cells.
        only_mapped: True leaves out columns that are mapped nowhere.
    """

    def __init__(
        self,
        identity: bytes | None,
        given: Iterable[str] = (),
        settings: Settings = (),
        *,
        delimiter: str = ",",
        only_mapped: bool = False,
    ) -> None:
        self._identity = identity
        self._given = tuple(given)
        self._settings = settings
        self._delimiter = delimiter
        self._only_mapped = only_mapped
        self._columns: Columns | None = None

    def event(self, raw: Raw) -> Event | None:
        """Make an event of a row; None where it is blank or the header.

        Raises:
            ValueError: the header does not fit what was asked for.
        """
        if self._columns is None:
            header = header_of(raw, self._delimiter)
            self._columns = Columns.of(
                header, self._given, only_mapped=self._only_mapped
            )
            return None
        if raw.row is None:
            if raw.problem:
                raise LineError(raw.problem)
            return None
        try:
            fields = self._columns.fields(raw.row)
        except ValueError as error:
            raise LineError(str(error)) from None
        return made(fields, raw, self._identity, self._settings)

    def skip(self, raw: Raw) -> None:
        """Pass a row over that an earlier run has sent; the header is still read."""
        if self._columns is None:
            self.event(raw)


def _json_fields(raw: Raw) -> dict[str, Any]:
    if raw.problem:
        raise LineError(raw.problem)
    try:
        found = from_json(raw.text, allow_inf_nan=False)
    except ValueError as error:
        if raw.text.lstrip()[:1] == b"[":
            raise LineError(_ARRAY) from None
        reason = f"the line is no JSON ({error})"
        raise LineError(reason) from None
    if not isinstance(found, dict):
        reason = _ARRAY if isinstance(found, list) else "the line is no JSON object"
        raise LineError(reason)
    try:
        if is_exported(found):
            return from_export(found)
        if isinstance(found.get("time"), str):
            found["time"] = milliseconds(found["time"])
    except ValueError as error:
        text = str(error)
        raise LineError(text if "=" in text else f"time {text}") from None
    if "extra" in found:
        raise LineError("extra is never sent: put it into event_properties")
    return found


_ARRAY: Final = "a JSON array: one event a line is wanted, as `jq -c '.[]'` makes them"


def made(
    fields: dict[str, Any], raw: Raw, identity: bytes | None, settings: Settings
) -> Event:
    """Make the event of a line, with an id that a second run would give it as well.

    Raises:
        LineError: a field is unknown, or a value does not fit.
    """
    if settings:
        fill(fields, settings)
    if identity is not None and not fields.get("insert_id"):
        fields["insert_id"] = derived_id(identity, raw)
    if "event_type" not in fields:
        raise LineError("event_type is missing: name the event")
    try:
        return Event(**fields)
    except ValidationError as error:
        raise LineError(explain(error)) from None


def derived_id(identity: bytes, raw: Raw) -> str:
    """Make the id of a line, the same in each run: of the file, number and text."""
    text = b"%d:%b" % (raw.number, raw.text)
    return hashlib.blake2b(text, digest_size=16, key=identity).hexdigest()
