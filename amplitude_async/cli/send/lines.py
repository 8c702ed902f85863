"""Lines become fields of events, or a reason why they do not."""

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

__all__ = ["CsvLines", "JsonLines", "LineError", "Lines", "made"]

Settings = Sequence[tuple[Place, Any]]


class LineError(ValueError):
    """A line that is no event: the message says why."""


class Lines(Protocol):
    """Makes fields of lines."""

    def fields(self, raw: Raw) -> dict[str, Any] | None:
        """Read the fields of a line's event; None where it holds none.

        Raises:
            LineError: it cannot be made.
        """

    def skip(self, raw: Raw) -> None:
        """Pass a line over that an earlier run has sent."""


class JsonLines:
    """One event a line, in the words of the API, of our own, or of an export.

    Args:
        settings: what events get that have none of their own.
    """

    def __init__(self, settings: Settings = ()) -> None:
        self._settings = settings

    def fields(self, raw: Raw) -> dict[str, Any] | None:
        """Read the fields of a line's event; None where it is blank."""
        if not raw.text.strip():
            return None
        fields = _json_fields(raw)
        if self._settings:
            fill(fields, self._settings)
        return fields

    def skip(self, raw: Raw) -> None:
        """Pass a line over that an earlier run has sent."""


class CsvLines:
    """One event a row; the first row names the columns.

    Args:
        given: what ``--map`` was given.
        settings: what events get that have none of their own.
        delimiter: what stands between cells.
        only_mapped: True leaves out columns that are mapped nowhere.
    """

    def __init__(
        self,
        given: Iterable[str] = (),
        settings: Settings = (),
        *,
        delimiter: str = ",",
        only_mapped: bool = False,
    ) -> None:
        self._given = tuple(given)
        self._settings = settings
        self._delimiter = delimiter
        self._only_mapped = only_mapped
        self._columns: Columns | None = None

    def fields(self, raw: Raw) -> dict[str, Any] | None:
        """Read the fields of a row's event; None where it is blank or the header.

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
        fill(fields, self._settings)
        return fields

    def skip(self, raw: Raw) -> None:
        """Pass a row over that an earlier run has sent; the header is still read."""
        if self._columns is None:
            self.fields(raw)


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
    if "api_key" in found:
        # Whose value is shown to nobody.
        raise LineError(_REQUEST if "events" in found else _KEY)
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


_REQUEST: Final = (
    "a whole request: one event a line is wanted, as `jq -c '.events[]'` makes them"
)
_KEY: Final = "api_key is no field of an event: set AMPLITUDE_API_KEY, and leave it out"
_ARRAY: Final = "a JSON array: one event a line is wanted, as `jq -c '.[]'` makes them"


def made(fields: dict[str, Any]) -> Event:
    """Make the event of a line.

    Raises:
        LineError: a field is unknown, or a value does not fit.
    """
    if "event_type" not in fields:
        raise LineError("event_type is missing: name the event")
    try:
        return Event(**fields)
    except ValidationError as error:
        raise LineError(explain(error)) from None
