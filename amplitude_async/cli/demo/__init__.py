"""The demo: a purchase log through a web service into a local server, and a verdict."""

__all__: list[str] = []
