"""Whose the files and the directory of a spool are: what others may write is not read.

Events go out under this service's key, so only what its own user has written does.
"""

import os
import stat
from pathlib import Path

__all__ = ["is_empty", "name_stranger", "open_to_all"]

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SIDE_FILES = ("", "-wal", "-journal")


def name_stranger(path: Path) -> str | None:
    """Say why a file is not ours to send; None where it is."""
    for suffix in _SIDE_FILES:
        name = Path(f"{path}{suffix}")
        try:
            found = name.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode):
            return f"{name.name} is no regular file: it is left alone; remove it"
        if found.st_uid != os.geteuid():
            return (
                f"{name.name} belongs to user {found.st_uid} and not to ours, "
                f"{os.geteuid()}: it is left alone; change its owner to have it sent"
            )
        if found.st_mode & _OTHERS_WRITE:
            return (
                f"{name.name} has mode {stat.S_IMODE(found.st_mode):04o}, so that "
                "others may have changed it: it is left alone; chmod 600 to have it "
                "sent"
            )
    return None


def is_empty(path: Path) -> bool:
    """Say whether there is no byte in a file: SQLite takes long to find that out."""
    return not path.stat().st_size


def open_to_all(directory: Path) -> bool:
    """Say whether anybody may delete what lies in a directory."""
    mode = directory.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
