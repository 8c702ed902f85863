"""What every log of a fleet promises, as tests that anybody can run.

Give the class a way to make your log, and pytest does the rest::

    class TestMyLog(LogContract):
        def make(self, directory: Path) -> Log:
            return MyLog(url, project=project_of(directory))

The tests run their own event loop: no plugin for asyncio is needed. None decides by
timing: what is to come is waited for, with a limit that only a broken log reaches.
"""

from amplitude_async.testing.log_contract.contract import LogContract
from amplitude_async.testing.log_contract.scene import (
    PLACE,
    collect,
    ids_of,
    make_chunk,
    make_letter,
    project_of,
    until,
)

__all__ = [
    "PLACE",
    "LogContract",
    "collect",
    "ids_of",
    "make_chunk",
    "make_letter",
    "project_of",
    "until",
]
