"""The tests of report_script.py: a script, its threads and its exit.

Run them with ``python -m pytest examples/tests``.
"""

import sys

import pytest

from amplitude_async.testing import CapturedEvents
from examples.report_script import main

__all__: list[str] = []


def test_reports(
    amplitude_events: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each user on the command line has a report mailed."""
    monkeypatch.setattr(sys, "argv", ["report_script.py", "user-1", "user-2"])
    main()

    for user in ("user-1", "user-2"):
        amplitude_events.assert_tracked(
            "Report Mailed", user_id=user, job="nightly", times=1
        )
