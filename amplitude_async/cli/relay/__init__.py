"""The commands that set a fleet's log up, deliver from it and look into it."""

__all__: list[str] = []
