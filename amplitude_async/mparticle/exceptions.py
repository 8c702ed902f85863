"""What the direct calls of the mParticle client raise.

MParticleError                        its ``result`` tells the whole story
├── BatchError (also a ValueError)    the batch breaks a rule; nothing was sent
├── AuthError                         401 or 403: wrong key, secret or input
├── BadRequestError                   400, other 4xx and 3xx: trying again is in vain
├── PayloadTooLargeError              413 for a single batch
├── MParticleClosedError (also a ClientClosedError)   the client was shut down
└── RetryExhaustedError               no success within the retries, or before shutdown
    ├── RateLimitedError              the last answer was 429
    ├── ServerError                   the last answer was another failure
    └── TransportError                there was no answer
"""

from amplitude_async.exceptions import AmplitudeError, ClientClosedError
from amplitude_async.mparticle.result import UploadResult

__all__ = [
    "AuthError",
    "BadRequestError",
    "BatchError",
    "MParticleClosedError",
    "MParticleError",
    "PayloadTooLargeError",
    "RateLimitedError",
    "RetryExhaustedError",
    "ServerError",
    "TransportError",
    "error_of",
]


class MParticleError(AmplitudeError):
    """Base of what the direct calls raise; ``result`` tells the whole story."""

    def __init__(self, message: str, result: UploadResult | None = None) -> None:
        super().__init__(message)
        self.result = result or UploadResult(
            ok=False, status=0, message=message, attempts=0
        )


class BatchError(MParticleError, ValueError):
    """A batch breaks a rule of the API; nothing was sent."""


class AuthError(MParticleError):
    """The server refuses key, secret or input; trying again does not help."""


class BadRequestError(MParticleError):
    """The server refuses the request; ``result.errors`` says why, where it told.

    A redirect is one too: it is never followed, because the request carries a secret.
    """


class PayloadTooLargeError(MParticleError):
    """A single batch is too large for the server."""


class MParticleClosedError(MParticleError, ClientClosedError):
    """The client was shut down; nothing was sent."""


class RetryExhaustedError(MParticleError):
    """No success within the retries."""


class RateLimitedError(RetryExhaustedError):
    """The server still asked for less; see ``result.retry_after`` and ``scope``."""


class ServerError(RetryExhaustedError):
    """The server still failed."""


class TransportError(RetryExhaustedError):
    """No answer came, or none that could be read."""


def error_of(result: UploadResult) -> MParticleError | None:
    """Make the error that fits a result; None where the upload succeeded."""
    if result.ok:
        return None
    kind: type[MParticleError]
    status = result.status
    if status == 0:
        kind = TransportError
    elif status in {401, 403}:
        kind = AuthError
    elif status == 413:
        kind = PayloadTooLargeError
    elif status == 429:
        kind = RateLimitedError
    elif status < 500 and status != 408:
        kind = BadRequestError
    else:
        kind = ServerError
    requests = "request" if result.attempts == 1 else "requests"
    return kind(f"{result.message} (after {result.attempts} {requests})", result)
