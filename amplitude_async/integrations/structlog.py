"""The user of a request on every line that structlog writes in it."""

from collections.abc import Iterable
from typing import Final

from structlog.typing import EventDict, WrappedLogger

from amplitude_async.binding import fields_here

__all__ = ["BoundFields"]

_DEFAULT: Final = ("user_id", "device_id", "session_id")


class BoundFields:
    """A processor that adds the bound fields of the current scope to a log event.

    What the line has itself stays as it is. Put it before the renderer.

    Args:
        fields: names of the fields to add, where they are bound.
        prefix: put before each name, as ``"amplitude_"``.
    """

    def __init__(self, fields: Iterable[str] = _DEFAULT, *, prefix: str = "") -> None:
        names = (fields,) if isinstance(fields, str) else fields
        self._names = [(name, f"{prefix}{name}") for name in names]

    def __call__(
        self, logger: WrappedLogger, method_name: str, event_dict: EventDict
    ) -> EventDict:
        """Add what is bound here; nothing that goes wrong costs the line."""
        del logger, method_name
        try:
            bound = fields_here()
            if bound:
                for name, key in self._names:
                    value = bound.get(name)
                    if value is not None:
                        event_dict.setdefault(key, value)
        except Exception:  # noqa: BLE001 - a line of the log is worth more than its user
            return event_dict
        return event_dict

    def __repr__(self) -> str:
        return f"<BoundFields {', '.join(key for _, key in self._names)}>"
