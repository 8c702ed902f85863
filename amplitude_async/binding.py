"""Scopes of bound fields: what a request knows, for every event tracked in it.

A scope is one object in a context variable. Whoever opens it, say for a request, gives
everybody in it a place to put fields: what a dependency, a function in a thread pool or
a child task binds, the whole request sees, since their contexts are copies that hold
the same object. Two requests have two scopes.

Where no scope is open, binding makes one for this context alone: a handler without a
middleware must not bind its user for the handlers beside it.
"""

import asyncio
from collections.abc import Mapping
from contextvars import ContextVar, Token
from enum import Enum, auto
from threading import RLock
from types import TracebackType
from typing import Any, Final

__all__ = [
    "MERGED",
    "Fields",
    "Kind",
    "Opened",
    "Scope",
    "fields_here",
    "innermost",
    "put_here",
]

MERGED: Final = frozenset({"event_properties", "user_properties", "groups"})
"""Dicts that merge one level: the keys of an inner scope, or of an event, win."""


class Fields(dict[str, Any]):
    """What is bound somewhere; nobody changes it once it was made."""

    __slots__ = ("merging", "valid")

    merging: tuple[str, ...]
    """Those of `MERGED` that are bound."""
    valid: Mapping[str, Any]
    """The same as a vendor's model has it; set by whoever has checked it first."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.merging = tuple(MERGED & fields.keys())


_NOTHING: Final = Fields({})


class Kind(Enum):
    """Who sees what is bound in a scope after it was opened."""

    SHARED = auto()
    """Everybody in it: a request, a job, a block."""
    AROUND = auto()
    """The same, but where it was opened outside of any task, perhaps around a whole
    server: tasks bind beside it."""
    LOCAL = auto()
    """One context alone, as nobody opened it: another takes its place."""


class Scope:
    """Fields for the events of one request, job or block.

    Args:
        outer: what it lies in; its own fields win over those of the outer ones.
        kind: who sees what is bound here later.
        fields: bound from the beginning.
    """

    __slots__ = ("_lock", "_merged", "_outer", "_own", "_seen", "is_over", "kind")

    def __init__(
        self,
        outer: "Scope | None" = None,
        kind: Kind = Kind.SHARED,
        fields: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self.kind = kind
        self.is_over = False
        """True once nobody can take it out of a context that it was put in."""
        self._outer = outer
        # Reentrant: the handler of a signal, or a finalizer, may bind in between.
        self._lock = RLock()
        self._own = fields
        self._seen = self._fields_around()
        self._merged = _laid_over(self._seen, fields) if fields else self._seen

    @property
    def fields(self) -> Fields:
        """All that is bound here, with what the outer scopes have; never changed.

        Binding makes another mapping: whoever keeps this one keeps it as it is.
        """
        # The usual one: every event in it comes by here.
        if self._outer is None and not self.is_over:
            return self._merged
        around = self._fields_around()
        if self.is_over:
            return around
        # The same object is the same fields: nobody has bound anything there since.
        if around is not self._seen:
            with self._lock:
                self._merged, self._seen = _laid_over(around, self._own), around
        return self._merged

    def put(self, fields: Mapping[str, Any]) -> None:
        """Bind fields; None takes one out, also where an outer scope has it.

        Any thread may do so.
        """
        around = self._fields_around()
        with self._lock:
            self._own = _joined(self._own, fields)
            self._merged, self._seen = _laid_over(around, self._own), around

    def with_fields(self, fields: Mapping[str, Any]) -> "Scope":
        """Make a scope like this one, in the same place, with more fields."""
        return Scope(self._outer, self.kind, _joined(self._own, fields))

    def still_open(self) -> "Scope | None":
        """Give this scope, or the innermost around it that is not over."""
        if not self.is_over:
            return self
        return None if self._outer is None else self._outer.still_open()

    def _fields_around(self) -> Fields:
        outer = None if self._outer is None else self._outer.still_open()
        return _NOTHING if outer is None else outer.fields

    def __repr__(self) -> str:
        return f"<Scope {self.kind.name.lower()}, {len(self.fields)} fields>"


class Opened:
    """Opens a scope for a block: ``with Opened(fields) as scope:``.

    What was started in the block, tasks and functions in threads, keeps the scope after
    the block's end.
    """

    __slots__ = ("_fields", "_kind", "_scope", "_token")

    def __init__(
        self, fields: Mapping[str, Any] = _NOTHING, kind: Kind = Kind.SHARED
    ) -> None:
        self._fields = fields
        self._kind = kind
        self._scope: Scope | None = None
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> Scope:
        if self._token is not None:
            raise RuntimeError("this scope is open already: open another one")
        kind = self._kind
        if kind is Kind.AROUND and _is_in_task():
            kind = Kind.SHARED
        self._scope = scope = Scope(_innermost(), kind, self._fields)
        self._token = innermost.set(scope)
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        scope, token = self._scope, self._token
        self._scope = self._token = None
        if scope is None or token is None:
            raise RuntimeError("this scope is not open: enter it first")
        try:
            innermost.reset(token)
        except ValueError:
            # Left in another context than it was entered in, as the generator of a
            # dependency may be. It cannot be taken out there, so it ends everywhere.
            scope.is_over = True


innermost: Final[ContextVar[Scope | None]] = ContextVar("amplitude_async", default=None)
"""The scope that was opened last where it is asked; None, for most, where none is."""


def fields_here() -> Fields | None:
    """Give what is bound here, never changed later; None where nothing is."""
    scope = _innermost()
    return None if scope is None else scope.fields or None


def put_here(fields: Mapping[str, Any]) -> None:
    """Bind fields in the scope that is open here, or else for this context alone."""
    scope = _innermost()
    if scope is None or (scope.kind is Kind.AROUND and _is_in_task()):
        innermost.set(Scope(scope, Kind.LOCAL, _joined({}, fields)))
    elif scope.kind is Kind.LOCAL:
        # Other contexts may hold a copy of this one: they keep what they have.
        innermost.set(scope.with_fields(fields))
    else:
        scope.put(fields)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Fields:
    """Lay fields over others; dicts that merge do so one level, None takes out."""
    merged = Fields(_joined(below, above))
    for name, value in above.items():
        if value is None:
            del merged[name]
    return merged


def _joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**below, **above}
    for name in MERGED & below.keys() & above.keys():
        lower, upper = below[name], above[name]
        if isinstance(lower, dict) and isinstance(upper, dict):
            joined[name] = {**lower, **upper}
    return joined


def _innermost() -> Scope | None:
    scope = innermost.get()
    return None if scope is None else scope.still_open()


def _is_in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
