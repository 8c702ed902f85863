"""Settings for gunicorn's own ASGI worker: it gives up before its master does."""

from typing import Any

__all__ = ["post_fork"]


def post_fork(server: Any, worker: Any) -> None:
    """Shorten in the worker what stays longer in the master, which kills it then."""
    worker.cfg.set("graceful_timeout", 1)
