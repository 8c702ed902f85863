"""What the clients of both vendors share: life, plugins, destinations, the road."""

__all__: list[str] = []
