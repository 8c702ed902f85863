"""One module for each framework or tool; nothing here is imported by the client."""

__all__: list[str] = []
