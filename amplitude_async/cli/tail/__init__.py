"""The command that follows a running emulator."""

__all__: list[str] = []
