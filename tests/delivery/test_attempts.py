"""What is remembered of failures: the rule of proof, and that it is forgotten."""

from amplitude_async.delivery.deciding.attempts import Attempts
from amplitude_async.delivery.outcome import DeliveryStatus, Outcome
from amplitude_async.storage.base import Record

__all__: list[str] = []

END = Outcome(DeliveryStatus.DELIVERED, 200, "delivered", None, 1)


def record(number: int) -> Record:
    """Make an event."""
    return Record(number, b"{}", "u", "u", None, str(number), 0.0)


def test_a_failure_is_charged_only_after_something_was_taken() -> None:
    """The first is no proof, nor is one without a success since the last."""
    attempts = Attempts(8)
    bad = record(1)

    assert not attempts.fail(bad, 5, broken=True)
    assert not attempts.fail(bad, 5, broken=True)
    assert attempts.charged == 0
    assert attempts.fail(bad, 6, broken=True)
    assert attempts.fail(bad, 7, broken=True)
    assert (attempts.failures(bad), attempts.charges(bad)) == (4, 2)
    assert attempts.charged == 1  # events, not charges
    assert attempts.size_limit(bad) == 2


def test_a_busy_server_moves_no_mark() -> None:
    """What it says is neither proof nor the end of one."""
    attempts = Attempts(8)
    event = record(1)
    attempts.fail(event, 1, broken=True)

    attempts.fail(event, 2, broken=False)
    assert attempts.fail(event, 2, broken=True)


def test_what_is_decided_is_forgotten() -> None:
    """Only those that were charged count as charged, and no longer than they wait."""
    attempts = Attempts(8)
    charged, tried, fresh = record(1), record(2), record(3)
    for taken in (1, 2):
        attempts.fail(charged, taken, broken=True)
    attempts.fail(tried, 2, broken=True)

    attempts.forget([(tried, END), (fresh, END)])
    assert attempts.charged == 1
    assert attempts.failures(tried) == 0
    attempts.forget([(charged, END)])
    assert attempts.charged == 0
    assert not attempts
