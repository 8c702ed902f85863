"""A first test: what a function tracks.

Run it with ``python -m pytest examples/tests/test_first.py``.
"""

from amplitude_async.sync import SyncAmplitude
from amplitude_async.testing import CapturedEvents

__all__: list[str] = []


def check_out(user: str, total: float) -> None:
    """Stand for your code, which knows nothing of tests."""
    with SyncAmplitude.from_env() as client:
        client.track("Paid", user_id=user, event_properties={"total": total})


def test_check_out(amplitude_events: CapturedEvents) -> None:
    """The event has the user and the amount."""
    check_out("user-1", 9.5)

    amplitude_events.assert_tracked("Paid", user_id="user-1", total=9.5)
