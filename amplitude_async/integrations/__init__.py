"""The client in frameworks and tools: one module for each, loaded by nobody else."""

__all__: list[str] = []
