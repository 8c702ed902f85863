"""The scope of a job: what is bound in it concerns this job alone.

Workers differ in where a job begins and ends, and in nothing else that matters here.
A job does not see what is bound where it was sent from, even where both are in one
process, as on a broker in memory: what shall reach it travels in a carrier.
"""

from collections.abc import Mapping
from typing import Any

from amplitude_async.binding import Opened, Scope, fields_here

__all__ = ["JobScope", "fields_around"]


def fields_around() -> Mapping[str, Any]:
    """Give what is bound around a worker when it starts: each of its jobs has it."""
    return fields_here() or {}


class JobScope(Opened):
    """Opens the scope of one job: ``with JobScope(fields):``.

    What was started in the job, tasks and functions in threads, keeps its scope.

    Args:
        fields: bound from the beginning, such as those that a carrier brought.
    """

    __slots__ = ("_given",)

    def __init__(self, *fields: Mapping[str, Any]) -> None:
        super().__init__(alone=True)
        self._given = fields

    def __enter__(self) -> Scope:
        scope = super().__enter__()
        for fields in self._given:
            scope.put(fields)
        return scope
