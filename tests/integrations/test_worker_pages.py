"""The pages of the workers show the examples that the tests run."""

from pathlib import Path

import pytest

__all__: list[str] = []

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["arq", "celery", "faststream", "taskiq"])
def test_a_page_shows_the_example_that_runs(name: str) -> None:
    """A reader copies what was tested."""
    page = (ROOT / f"docs/integrations/{name}.md").read_text(encoding="utf-8")
    example = (ROOT / f"examples/{name}_worker.py").read_text(encoding="utf-8")

    assert f"```python\n{example}```\n" in page
