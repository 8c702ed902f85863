"""What JetStream's answers mean: errors by their number, and times."""

import pytest

from amplitude_async.exceptions import (
    ChunkTooLargeError,
    ConfigurationError,
    LogError,
    LogFullError,
    LogRefusedError,
)
from amplitude_async.fleet import JetStreamLog
from amplitude_async.fleet.nats.api import ApiError, failure, timestamp


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (10077, "maximum bytes exceeded", LogFullError),
        (10047, "insufficient storage resources available", LogFullError),
        (10054, "message size exceeds maximum allowed", ChunkTooLargeError),
        (10060, "expected stream does not match", LogRefusedError),
        (10059, "stream not found", ApiError),
    ],
)
def test_an_error_is_told_by_its_number(
    code: int, words: str, kind: type[LogError]
) -> None:
    """By its own error: full, too large, refused, and all others."""
    found = failure({"error": {"code": 503, "err_code": code, "description": words}})

    assert type(found) is kind
    assert words in str(found)
    assert str(code) in str(found)


@pytest.mark.parametrize("answer", [{}, {"error": None}, {"stream": "AX_p", "seq": 7}])
def test_an_answer_without_an_error_has_none(answer: dict[str, object]) -> None:
    """Then it was done."""
    assert failure(answer) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-29T00:00:00Z", 0.0),
        ("2026-11-29T00:00:00.5Z", 0.5),
        ("2026-11-29T00:00:00.123456789Z", 0.123456789),
    ],
)
def test_times_have_up_to_nine_digits(text: str, seconds: float) -> None:
    """Servers leave out what is nought."""
    whole = timestamp("2026-11-29T00:00:00Z")

    assert timestamp(text) - whole == pytest.approx(seconds, abs=1e-6)


async def test_more_partitions_than_a_stream_has_consumers_are_refused() -> None:
    """Before anything is made: their number is fixed by the first setup."""
    log = JetStreamLog("nats://127.0.0.1:1", project="web")
    with pytest.raises(ConfigurationError, match="partitions=501: give 1 to 500"):
        await log.setup(501)
