"""Both storages keep the promises that third parties' storages are held to."""

from pathlib import Path

from amplitude_async.storage import MemoryStorage, SQLiteStorage, Storage
from amplitude_async.testing.storage_contract import StorageContract

__all__: list[str] = []


class TestMemoryStorage(StorageContract):
    """The storage that keeps nothing."""

    def make(self, directory: Path) -> Storage:  # noqa: ARG002 - it needs no place
        """Make one that is not open yet."""
        return MemoryStorage()


class TestSQLiteStorage(StorageContract):
    """The spool, as it comes."""

    def make(self, directory: Path) -> Storage:
        """Make one that is not open yet."""
        return SQLiteStorage(directory)


class TestSQLiteStorageInFull(StorageContract):
    """The spool that survives a loss of power and keeps dead letters."""

    def make(self, directory: Path) -> Storage:
        """Make one that is not open yet."""
        return SQLiteStorage(directory, synchronous="full", dead_letters=10)
