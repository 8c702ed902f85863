"""The delivery engine: no vendor, no pydantic; deciding is apart from doing."""

__all__: list[str] = []
