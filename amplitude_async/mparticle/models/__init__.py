"""What a batch is made of: one file for each kind of part."""

__all__: list[str] = []
