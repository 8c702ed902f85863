"""The tests of the examples pass for somebody who has just installed the package."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

__all__: list[str] = []

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/testing.md"
OTHER_PAGES = {
    "test_arq_worker": ["integrations/arq.md"],
    "test_celery_worker": ["integrations/celery.md", "testing.md"],
    "test_django_service": ["integrations/django.md"],
    "test_faststream_worker": ["integrations/faststream.md"],
    "test_lambda_handler": ["integrations/aws-lambda.md"],
    "test_own_plugin": ["testing/contracts.md"],
    "test_own_storage": ["testing/contracts.md"],
    "test_taskiq_worker": ["integrations/taskiq.md"],
}
EXAMPLES = ROOT / "examples"
TESTS = sorted((EXAMPLES / "tests").glob("test_*.py"))
# What a file needs that the group `tests` does not bring.
NEEDS = {
    "test_arq_worker": "arq",
    "test_celery_worker": "celery",
    "test_django_service": "django",
    "test_faststream_worker": "faststream",
    "test_taskiq_worker": "taskiq",
}


def run(folder: Path, *chosen: str, **environment: str) -> tuple[int, str]:
    """Run pytest on files in a folder, with no configuration of ours and no key."""
    # The second line is what pytest-asyncio asks every suite to write.
    (folder / "pytest.ini").write_text(
        "[pytest]\n"
        "asyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = error\n"
    )
    mine = ("AMPLITUDE", "MPARTICLE", "PYTEST")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
    path = os.pathsep.join((str(folder), os.environ["PYTHONPATH"]))
    command = (sys.executable, "-m", "pytest", "-c", "pytest.ini")
    done = subprocess.run(
        [*command, *chosen],
        cwd=folder,
        env={**kept, "PYTHONPATH": path, "CELERY_FOLDER": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_tests_of_the_examples_pass(tmp_path: Path) -> None:
    """In a folder of their own, with no configuration, no key and no flush."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored)
    chosen = [
        f"examples/tests/{path.name}"
        for path in TESTS
        if find_spec(NEEDS.get(path.stem, "pytest"))
    ]

    code, text = run(tmp_path, *chosen)

    assert code == 0, text
    assert re.search(r"=== \d+ passed in [\d.]+s ===", text), text


def test_the_page_shows_what_a_failing_assertion_says(tmp_path: Path) -> None:
    """Each line of it, word for word."""
    test = (EXAMPLES / "tests/test_first.py").read_text(encoding="utf-8")
    assert test.count("total=9.5") == 1
    (tmp_path / "test_first.py").write_text(test.replace("total=9.5", "total=9.9"))

    _, text = run(tmp_path, "test_first.py")

    said = {line.removeprefix("E").strip() for line in text.splitlines()}
    said = {line.removeprefix("AssertionError: ") for line in said}
    assert {line.strip() for line in shown()[0].splitlines()} <= said


def test_the_page_shows_what_the_guard_says(tmp_path: Path) -> None:
    """Without the fixture, the test of the page fails and names the line."""
    test = (EXAMPLES / "tests/test_first.py").read_text(encoding="utf-8")
    (tmp_path / "test_first.py").write_text(
        test.replace("amplitude_events: CapturedEvents", "").replace(
            "    amplitude_events.assert", "    CapturedEvents().assert_not"
        )
    )

    code, text = run(tmp_path, "test_first.py", AMPLITUDE_API_KEY="some-key")

    assert code == 1
    assert shown()[1] in text


def shown() -> list[str]:
    """Return the blocks of plain text on the page."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", TESTS, ids=[path.stem for path in TESTS])
def test_the_page_shows_the_tests_that_pass(path: Path) -> None:
    """A reader copies whole files that were run."""
    shown = f"```python\n{path.read_text(encoding='utf-8')}```\n"

    for name in OTHER_PAGES.get(path.stem, [PAGE.name]):
        assert shown in (ROOT / "docs" / name).read_text(encoding="utf-8"), name
