"""The command that runs another one beside an emulator."""

__all__: list[str] = []
