"""The fleet on one machine: a real log, two relays, a producer, and what is killed."""

__all__: list[str] = []
