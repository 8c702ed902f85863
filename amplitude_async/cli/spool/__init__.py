"""The commands for spools, and how they show what they find."""

__all__: list[str] = []
