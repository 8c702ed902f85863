"""The inside of ``SQLiteStorage``: files, their locks, and who reads them when."""

__all__: list[str] = []
