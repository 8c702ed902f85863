"""The page on synchronous code shows a script that runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

from amplitude_async.emulator import Emulator

__all__: list[str] = []

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "report_script.py"


def test_the_script_delivers_with_its_users(server: Emulator) -> None:
    """Whoever copies it finds an event for each user, with what is bound."""
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), "user-1", "user-2"],
        env={
            **os.environ,
            "AMPLITUDE_API_KEY": "test-key-that-no-log-shows",
            "AMPLITUDE_SERVER_URL": server.httpapi_url,
            "AMPLITUDE_TRUST_ENV": "false",
        },
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )

    assert finished.stdout == "2 delivered, 0 waiting\n"
    assert finished.stderr == ""
    assert [
        (event["user_id"], event["event_properties"]) for event in server.events
    ] == [("user-1", {"job": "nightly"}), ("user-2", {"job": "nightly"})]


def test_the_page_shows_the_script_that_runs() -> None:
    """A reader copies what was tested."""
    page = (ROOT / "docs" / "synchronous.md").read_text(encoding="utf-8")

    assert f"```python\n{SCRIPT.read_text(encoding='utf-8')}```\n" in page
