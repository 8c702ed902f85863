"""uvicorn's worker for gunicorn, with a bound for requests that do not end."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

__all__ = ["BoundedWorker"]


class BoundedWorker(UvicornWorker):  # type: ignore[misc]  # without types
    """Cancels what still runs after so many seconds, and then ends the lifespan."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "timeout_graceful_shutdown": 1,
    }
