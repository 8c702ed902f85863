"""What the API answers when it refuses a request."""

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ApiError", "ApiErrorResponse"]


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
