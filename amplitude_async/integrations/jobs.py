"""The scope of a job: what is bound in it concerns this job alone.

Workers differ in where a job begins and ends, and in nothing else that matters here.
A job does not see what is bound where it was sent from, even where both are in one
process, as on a broker in memory: what shall reach it travels in a carrier.
"""

from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from amplitude_async.binding import Fields, Scope, fields_here, innermost

__all__ = ["JobScope", "fields_around"]


def fields_around() -> Mapping[str, Any]:
    """Give what is bound around a worker when it starts: each of its jobs has it."""
    return fields_here() or {}


class JobScope:
    """Opens the scope of one job: ``with JobScope(fields):``.

    What was started in the job, tasks and functions in threads, keeps its scope.

    Args:
        fields: bound from the beginning, such as those that a carrier brought.
    """

    __slots__ = ("_scope", "_token")

    def __init__(self, *fields: Mapping[str, Any]) -> None:
        scope = Scope()
        for given in fields:
            if given:
                scope.put(given)
        self._scope = scope
        self._token: Token[Scope | None] | None = None

    @property
    def fields(self) -> Fields:
        """What is bound in it, also after its end."""
        return self._scope.fields

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("the scope of this job is open already: make another")
        self._token = innermost.set(self._scope)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            innermost.reset(token)
        except ValueError:
            # Ended in another context than it began in: it cannot be taken out there,
            # so it ends everywhere.
            self._scope.is_over = True
