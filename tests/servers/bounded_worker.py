"""uvicorn's worker for gunicorn, with a bound for requests that do not end."""

from typing import Any

from uvicorn_worker import UvicornWorker

__all__ = ["BoundedWorker"]


class BoundedWorker(UvicornWorker):
    """Cancels what still runs after so many seconds, and then ends the lifespan."""

    CONFIG_KWARGS: dict[str, Any] = {
        **UvicornWorker.CONFIG_KWARGS,
        "timeout_graceful_shutdown": 1,
    }
