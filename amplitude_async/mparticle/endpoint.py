"""The mParticle Events API: request bodies, limits and answers. Pure."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from amplitude_async._version import __version__
from amplitude_async.delivery.endpoint import (
    Accept,
    Bisect,
    Halve,
    Refuse,
    Response,
    Verdict,
    describe_failure,
    excerpt,
    interpret_trouble,
    retry_after,
)
from amplitude_async.mparticle.config import MParticleConfig
from amplitude_async.mparticle.models.batch import Batch, decode_batch
from amplitude_async.mparticle.result import ApiError, ApiErrorResponse
from amplitude_async.redaction import seal
from amplitude_async.storage.base import Record

__all__ = ["MParticleEndpoint", "interpret", "parse_errors", "tell"]

# mParticle documentation, "Default Service Limits": decimal kilobytes are safe under
# either reading of "kB".
MAX_BATCHES = 100
MAX_REQUEST_BYTES = 256_000
MAX_BATCH_BYTES = 128_000
MAX_RETRY_AFTER = 300.0

PERCENTAGE_HEADER = "x-mp-rate-limit-percentage-used"
SCOPE_HEADER = "x-mp-rate-limit-exceeded"


class MParticleEndpoint:
    """One mParticle input, as the delivery engine sees it: bulk requests."""

    name = "mparticle"
    base_url = ""
    max_events = MAX_BATCHES
    max_bytes = MAX_REQUEST_BYTES
    frame_bytes = 2
    """The brackets around a list of batches."""

    def __init__(self, config: MParticleConfig) -> None:
        self.base_url = config.url
        self.url = f"{config.url}/bulkevents"
        self.compress = config.compression == "gzip"
        self.headers: Mapping[str, str] = _headers(config)
        self._fingerprint = f"{urlsplit(self.url).hostname} {config.fingerprint}"

    def __repr__(self) -> str:
        return f"<MParticleEndpoint {self.base_url!r}>"

    def frame(self, bodies: Sequence[bytes], wall: float) -> bytes:  # noqa: ARG002
        """Join encoded batches to a bulk request; the API takes no upload time."""
        return b"[%b]" % b",".join(bodies)

    def interpret(
        self, response: Response, records: Sequence[Record], wall: float
    ) -> Verdict:
        """Say what an answer means for the batches of its request."""
        return interpret(response, records, wall)

    def decode(self, body: bytes) -> Batch:
        """Rebuild a batch from its encoded bytes."""
        return decode_batch(body)

    def fingerprint(self) -> str:
        """Name host and input without giving the key away."""
        return self._fingerprint


def _headers(config: MParticleConfig) -> dict[str, str]:
    """Add the caller's headers, which cannot replace what the API needs."""
    needed = {
        "Content-Type": "application/json",
        "Authorization": seal(config.authorization),
    }
    replaceable = {
        "Accept": "application/json",
        "User-Agent": f"amplitude-async/{__version__}",
    }
    fixed = {name.lower() for name in needed}
    extra = {n: v for n, v in config.headers.items() if n.lower() not in fixed}
    given = {name.lower() for name in extra}
    kept = {n: v for n, v in replaceable.items() if n.lower() not in given}
    return {**kept, **extra, **needed}


def interpret(response: Response, records: Sequence[Record], wall: float) -> Verdict:  # noqa: ARG001
    """Say what an answer means for the batches of its request.

    A bulk request is refused as a whole and names no batch, so that a 400 is bisected;
    ``source_request_id`` makes sending again safe. Source: mParticle HTTP API
    documentation, section "Responses".
    """
    status = response.status
    # Before the error: a batch that was taken is not sent again because the answer
    # broke off.
    if 200 <= status < 300:
        return Accept(status, "queued by mParticle")
    if response.error is not None:
        return interpret_trouble(response, describe_failure(response), None)
    message = _explain(response)
    wait = retry_after(response.headers, wall, MAX_RETRY_AFTER)
    if status == 413:
        return Halve(status, message)
    if wait is not None or not 400 <= status < 500 or status in {408, 429}:
        scope = response.headers.get(SCOPE_HEADER, "").strip(' "')
        reason = f"rate limit of {excerpt(scope)}: " if scope else ""
        return interpret_trouble(response, reason + message, wait)
    # Whatever the batch: this key or address takes nothing.
    if status in {401, 403, 404, 405}:
        return Refuse(status, message)
    return Bisect(status, message)


def _explain(response: Response) -> str:
    errors = parse_errors(response.body)
    if not errors:
        return describe_failure(response)
    return f"HTTP {response.status}: {tell(errors)}"


def tell(errors: Sequence[ApiError]) -> str:
    """Say in words what the server complained about, at most three of its reasons."""
    reasons = (f"{error.code}: {error.message}" for error in errors[:3])
    return excerpt("; ".join(reasons))


def parse_errors(body: bytes) -> tuple[ApiError, ...]:
    """Read an error answer; empty where it is absent, broken or not JSON."""
    try:
        return tuple(ApiErrorResponse.model_validate_json(body).errors)
    except ValueError:
        return ()
