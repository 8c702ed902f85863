"""At home in frameworks and tools: one module for each, to be imported by name."""

__all__: list[str] = []
