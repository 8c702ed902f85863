"""The tests of celery_worker.py: a task runs where it is sent, with its sender's user.

Run them with ``python -m pytest examples/tests``.
"""

import pytest

from amplitude_async import bound
from amplitude_async.testing import CapturedEvents
from examples.celery_worker import app, welcome

__all__: list[str] = []


def test_welcome(
    amplitude_events: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user whom the sender has bound is on the task's event."""
    monkeypatch.setitem(app.conf, "task_always_eager", value=True)
    with bound(user_id="user-1"):
        welcome.delay("de")

    # A keyword that is a field of events is that field: a property's name goes inside.
    amplitude_events.assert_tracked(
        "User Welcomed", user_id="user-1", event_properties={"language": "de"}
    )
