"""The command that sends one event, or a file of a million."""

__all__: list[str] = []
