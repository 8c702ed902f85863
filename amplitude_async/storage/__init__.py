"""Where accepted events wait: in memory, or in a spool that survives the process."""

from amplitude_async.storage.base import Record, Storage
from amplitude_async.storage.memory import MemoryStorage

__all__ = ["MemoryStorage", "Record", "Storage"]
