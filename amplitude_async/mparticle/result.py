"""What a direct upload brings back, and what the API answers when it refuses one."""

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ApiError", "ApiErrorResponse", "UploadResult"]


class ApiError(BaseModel):
    """One reason for a refusal."""

    model_config = ConfigDict(extra="ignore")

    code: str | None = None
    """A code, for example ``BAD_REQUEST``. There is no public list of them."""

    message: str | None = None
    """The reason in words."""


class ApiErrorResponse(BaseModel):
    """The body of a refusal. Servers may leave it out or send something else."""

    model_config = ConfigDict(extra="ignore")

    errors: list[ApiError] = Field(default_factory=list)
    """The reasons."""


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
