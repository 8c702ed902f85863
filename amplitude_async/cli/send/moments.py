"""Points in time as files write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["milliseconds"]

_WHOLE: Final = re.compile(r"-?\d{1,18}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(text: str) -> int:
    """Read a time: milliseconds since the epoch, or ISO 8601.

    A time without a zone is UTC, as in Amplitude's exports.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = (
            "is no time: write milliseconds since the epoch, or ISO 8601 such as "
            "2026-01-31T12:00:00Z"
        )
        raise ValueError(msg) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)
