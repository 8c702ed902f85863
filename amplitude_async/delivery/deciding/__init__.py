"""What decides: no await, no clock, no socket; time is a parameter."""

__all__: list[str] = []
