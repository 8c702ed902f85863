"""Where accepted events wait: in memory, or in a spool that survives the process.

``SQLiteStorage`` is loaded when it is first asked for: nobody else pays for sqlite3.
"""

from typing import TYPE_CHECKING, Any

from amplitude_async.storage.base import DeadLetter, Record, Storage
from amplitude_async.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from amplitude_async.storage.sqlite import SQLiteStorage

__all__ = ["DeadLetter", "MemoryStorage", "Record", "SQLiteStorage", "Storage"]


def __getattr__(name: str) -> Any:
    if name == "SQLiteStorage":
        from amplitude_async.storage.sqlite import SQLiteStorage  # noqa: PLC0415

        return SQLiteStorage
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
