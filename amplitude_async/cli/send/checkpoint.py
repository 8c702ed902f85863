"""How far a file was sent, kept beside it: a later run goes on from there."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

__all__ = ["Checkpoint", "CheckpointError", "CheckpointFile"]

_VERSION: Final = 1
_LONGEST: Final = 65_536


class CheckpointError(ValueError):
    """A checkpoint that does not go with what is to be sent."""


@dataclass(frozen=True)
class Checkpoint:
    """Up to which line everything is known, and what became of it."""

    source: str
    """Which input it was."""
    destination: str
    """Where it went."""
    line: int = 0
    """The outcome of this line and of all before it is known."""
    last: str = ""
    """What that line was, so that another input is noticed."""
    delivered: int = 0
    rejected: int = 0
    blank: int = 0
    complete: bool = False

    def moved(self, **values: Any) -> "Checkpoint":
        """Give the next one."""
        return replace(self, **values)


class CheckpointFile:
    """The file that holds a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Checkpoint | None:
        """Read what stands there; None where nothing does.

        Raises:
            CheckpointError: it cannot be read, or is a file of another kind.
        """
        try:
            with self.path.open("rb") as file:
                text = file.read(_LONGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            msg = f"{self.path} cannot be read: {error.strerror or error}"
            raise CheckpointError(msg) from None
        found = _parsed(text)
        if found is None:
            msg = (
                f"{self.path} is no checkpoint: give another name with --checkpoint, "
                "or delete it"
            )
            raise CheckpointError(msg)
        return found

    def earlier(self, source: str, destination: str) -> Checkpoint | None:
        """Read the checkpoint of an input; None where there is none.

        Raises:
            CheckpointError: it cannot be read, or belongs to something else.
        """
        found = self.read()
        if found is None:
            return None
        if found.source != source:
            msg = (
                f"{self.path} belongs to another input, or this one has changed since. "
                "--restart sends all of it, but lines without an insert_id get new ids "
                "and would be there twice: put what is new into a file of its own; "
                "--checkpoint names another checkpoint"
            )
            raise CheckpointError(msg)
        if found.destination != destination:
            msg = (
                f"{self.path} tells of another destination or key: --restart sends all "
                "of it, --checkpoint names another file"
            )
            raise CheckpointError(msg)
        return found

    def write(self, checkpoint: Checkpoint) -> None:
        """Write it whole or not at all.

        Raises:
            OSError: there is no room, or no permission.
        """
        text = json.dumps({"version": _VERSION, **asdict(checkpoint)}, indent=1)
        draft = self.path.with_name(self.path.name + ".new")
        with suppress(FileNotFoundError):
            draft.unlink()
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            # Or a power cut might leave an empty file under the right name.
            os.fsync(file.fileno())
        draft.replace(self.path)


def _parsed(text: bytes) -> Checkpoint | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.pop("version", None) != _VERSION:
        return None
    kinds = dict(Checkpoint.__annotations__)
    if found.keys() != kinds.keys():
        return None
    if any(type(found[name]) is not kind for name, kind in kinds.items()):
        return None
    return Checkpoint(**found)
