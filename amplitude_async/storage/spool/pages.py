"""The free space inside one file: what can be written to it, and what is given back."""

from amplitude_async.storage.spool.database import Database

__all__ = ["Pages"]

# Give space back to the disk in small steps, and only where much is free.
_MUCH_FREE = 2_048
_PAGES_AT_ONCE = 1_000


class Pages:
    """The pages of one file that hold nothing.

    Args:
        database: the file.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def reusable(self) -> int:
        """How many bytes can be written before the file grows."""
        pages = self._database.value("PRAGMA freelist_count")
        return int(pages * self._database.value("PRAGMA page_size"))

    def shrink(self) -> None:
        """Give the disk a little of the free space back, where there is much of it."""
        free = self._database.value("PRAGMA freelist_count")
        if free < _MUCH_FREE or free * 2 <= self._database.value("PRAGMA page_count"):
            return
        # Each step frees a page: all rows are asked for.
        self._database.rows(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
