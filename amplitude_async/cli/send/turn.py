"""One run at a time for each checkpoint: two would write over what the other knows."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["TakenError", "turn"]


class TakenError(Exception):
    """Another run has this checkpoint now."""


@contextmanager
def turn(checkpoint: Path) -> Iterator[None]:
    """Keep other runs from a checkpoint while the block runs.

    The kernel frees it when this process dies, however that happens.

    Raises:
        TakenError: another run has it.
        OSError: there is no room for a lock, or no permission.
    """
    if sys.platform == "win32":
        yield
        return
    # Not at the top: Windows has no such locks.
    from amplitude_async.storage.spool.lock import SpoolLock  # noqa: PLC0415

    lock = SpoolLock.try_acquire(checkpoint.with_name(f"{checkpoint.name}.lock"))
    if lock is None:
        raise TakenError
    try:
        yield
    finally:
        lock.release(remove=True)
