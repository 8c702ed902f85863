"""What every log asks of a project: its name, and its number of partitions."""

import re
from typing import Final

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.shown import shown

__all__ = ["check_fixed", "check_partitions", "check_project"]

MOST_PARTITIONS: Final = 1_024
_NAME: Final = re.compile(r"[a-z0-9_-]{1,40}")


def check_project(project: object) -> None:
    """Refuse what is no name of a project: it stands in subjects and in addresses.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(project, str) or not _NAME.fullmatch(project):
        msg = (
            f"project={shown(project)} is no name of a project: use 1 to 40 of a-z, "
            "0-9, _ and -"
        )
        raise ConfigurationError(msg)


def check_partitions(partitions: object, most: int = MOST_PARTITIONS) -> None:
    """Refuse a number of partitions that no log has; None says nothing, and passes.

    Args:
        partitions: what was asked for.
        most: as many as such a log can have.

    Raises:
        ConfigurationError: it is no such number.
    """
    if partitions is None:
        return
    if type(partitions) is not int or not 1 <= partitions <= most:
        msg = f"partitions={shown(partitions)}: give 1 to {most}"
        raise ConfigurationError(msg)


def check_fixed(project: str, partitions: int | None, there: int) -> None:
    """Refuse another number of partitions than a project was set up with.

    Raises:
        ConfigurationError: it is another one.
    """
    if partitions not in {None, there}:
        msg = (
            f"partitions={partitions}: log {shown(project)} was set up with {there}, "
            f"and their number is fixed: ask for {there}, or use another project"
        )
        raise ConfigurationError(msg)
