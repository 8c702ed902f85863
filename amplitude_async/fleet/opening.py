"""Several who open one log at the same time: none of them shuts it on the others."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["Opening"]


class Opening:
    """Those who open a log right now, on one loop of one process.

    Args:
        give_up: shuts what was opened, unless another of them has come through.
    """

    def __init__(self, give_up: Callable[[], Awaitable[None]]) -> None:
        self._give_up: Final = give_up
        self._trying = 0

    def __repr__(self) -> str:
        return f"<Opening by {self._trying}>"

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """Open in here; where that fails, the last who tries gives it up."""
        self._trying += 1
        try:
            yield
        except GeneratorExit:
            raise  # its loop is gone: there is nothing to wait on
        except BaseException:
            if self._trying == 1:
                await self._give_up()
            raise
        finally:
            self._trying -= 1
