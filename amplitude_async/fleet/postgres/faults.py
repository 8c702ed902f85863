"""What the database's errors mean for a chunk: stored for sure not, or nobody knows."""

from typing import Final

from amplitude_async.exceptions import (
    LogError,
    LogFullError,
    LogRefusedError,
    LogUnreachableError,
)
from amplitude_async.shown import kind_of, printable

__all__ = ["connection_fault", "outlived", "statement_fault"]

LONGEST: Final = 300
DEEPEST: Final = 5
SETUP: Final = "run `amplitude-async relay setup`"

_REFUSED: Final = {
    "42501": "grant the role the rights that PostgresLog names",
    "42P01": SETUP,
    "42703": SETUP,
    "3F000": SETUP,
    "3D000": "create the database",
    "28000": "check the user and pg_hba.conf",
    "28P01": "check the password",
    "42704": "take what the server does not know out of the dsn's options",
    "22023": "correct the dsn's options",
}
_FULL: Final = {"53100": "make room on the server's disk"}
_BUSY: Final = {
    "25006": "this server is a standby or read-only",
    "53000": "the server lacks resources",
    "53200": "the server lacks memory",
    "53300": "no connection is left: use a pooler, or raise max_connections",
    "57P03": "the server is starting, or is a standby that takes no connection",
}
# The connection is of no use any more, or leads to the wrong server; or what was
# prepared on it does not fit the tables any more.
_ENDING: Final = ("08", "57P", "25006", "0A000")


def _code(error: BaseException) -> str:
    """Give the error's five characters; a library may have wrapped the driver's."""
    cause: BaseException | None = error
    for _ in range(DEEPEST):
        code = getattr(cause, "sqlstate", None)
        if isinstance(code, str):
            return code
        cause = getattr(cause, "orig", None) or getattr(cause, "__cause__", None)
    return ""


def _words(error: BaseException) -> str:
    # The first line only: the others may quote values, or the statement.
    text = str(error).strip().partition("\n")[0] or kind_of(error)
    return printable(text[:LONGEST])


def _known(error: BaseException) -> LogError | None:
    code = _code(error)
    text = f"PostgreSQL: {_words(error)} ({code})"
    if code in _REFUSED:
        return LogRefusedError(f"{text}: {_REFUSED[code]}")
    if code in _FULL:
        return LogFullError(f"{text}: {_FULL[code]}")
    if code in _BUSY:
        return LogUnreachableError(f"{text}: {_BUSY[code]}")
    return None


def connection_fault(error: BaseException, where: str) -> LogError:
    """Say why there is no connection: nothing was sent."""
    known = _known(error)
    if known is not None:
        return known
    words = "no answer in time" if isinstance(error, TimeoutError) else _words(error)
    return LogUnreachableError(f"PostgreSQL at {where} cannot be reached: {words}")


def statement_fault(error: BaseException) -> LogError:
    """Say what became of a statement that was sent."""
    known = _known(error)
    if known is not None:
        return known
    code = _code(error)
    told = f" ({code})" if code else ""
    return LogError(f"PostgreSQL: {_words(error)}{told}: it may have been done or not")


def outlived(error: BaseException) -> bool:
    """Say whether the connection is still of use after an error."""
    code = _code(error)
    return bool(code) and not code.startswith(_ENDING)
