"""The command that looks for what stands between a service and its events."""

__all__: list[str] = []
