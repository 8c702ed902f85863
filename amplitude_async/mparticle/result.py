"""What a direct upload brings back."""

from dataclasses import dataclass, field

from amplitude_async.mparticle.responses import ApiError

__all__ = ["UploadResult"]


@dataclass(frozen=True, slots=True)
class UploadResult:
    """How one request of a direct upload ended."""

    ok: bool
    """True where the server took it (any 2xx)."""
    status: int
    """HTTP status of the last answer; 0 where there was none."""
    message: str
    """What happened, in words."""
    attempts: int
    """Requests that were made for it."""
    errors: tuple[ApiError, ...] = ()
    """What the server complained about, where its answer could be read."""
    rate_limit_percentage: float | None = None
    """The greatest use of a rate limit, in per cent, where the server told."""
    retry_after: float | None = None
    """Seconds the server asked to wait, where it did."""
    scope: str | None = None
    """Whose rate limit was exceeded: org, account, app, feed, workspace, ..."""
    source_request_ids: tuple[str, ...] = field(default=())
    """The idempotency keys of the batches in the request."""
