"""Scopes of bound fields: what a request knows, for every event tracked in it.

A scope is one object in a context variable. Whoever opens it, say for a request, gives
everybody in it a place to put fields: what a dependency, a function in a thread pool or
a child task binds, the whole request sees, since their contexts are copies that hold
the same object. Two requests have two scopes.

Where no scope is open, binding makes one for this context alone: a handler without a
middleware must not bind its user for the handlers beside it.

A context says little of who runs in it: servers start a request in the context of the
one before it on the same connection, and threads of a pool keep theirs. So the scope of
a request looks at where it is opened, and lies in no other request's.
"""

import asyncio
from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from enum import Enum, auto
from threading import RLock, get_ident
from types import TracebackType
from typing import Any, Final

__all__ = [
    "MERGED",
    "Fields",
    "Kind",
    "Opened",
    "OpenedRequest",
    "Scope",
    "around_request",
    "fields_here",
    "innermost",
    "is_in_request",
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
        dict.__init__(self, fields)
        # Most have none, and that is told without making anything.
        self.merging = (
            ()
            if MERGED.isdisjoint(fields)
            else tuple(name for name in MERGED if name in fields)
        )


_NOTHING: Final = Fields({})
_KEY: Final = "amplitude_async"
_DEEPEST: Final = 50


class Kind(Enum):
    """Who sees what is bound in a scope after it was opened."""

    SHARED = auto()
    """Everybody in it: a job, a block."""
    REQUEST = auto()
    """The same, and no other request lies in it."""
    AROUND = auto()
    """The same, but where it was opened outside of any loop, perhaps around a whole
    server: tasks and other threads bind beside it."""
    LOCAL = auto()
    """One context alone, as nobody opened it: another takes its place."""


class Scope:
    """Fields for the events of one request, job or block.

    Args:
        outer: what it lies in; its own fields win over those of the outer ones.
        kind: who sees what is bound here later.
        fields: bound from the beginning.
    """

    __slots__ = (
        "_lock",
        "_merged",
        "_own",
        "_seen",
        "_thread",
        "depth",
        "is_over",
        "kind",
        "outer",
    )

    def __init__(
        self,
        outer: "Scope | None" = None,
        kind: Kind = Kind.SHARED,
        fields: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self.kind = kind
        self.is_over = False
        """True once nobody can take it out of a context that it was put in."""
        self.outer = outer
        """What it lies in."""
        self.depth: int = 1 if outer is None else outer.depth + 1
        """How many scopes it is from here to the outermost."""
        self._thread = get_ident() if kind is Kind.AROUND else None
        # Reentrant: the handler of a signal, or a finalizer, may bind in between.
        self._lock = RLock()
        self._own: Mapping[str, Any] = dict(fields) if fields else _NOTHING
        # Laid over each other when somebody asks: many a request tracks nothing.
        self._merged: Fields | None = None
        self._seen = _NOTHING

    @property
    def fields(self) -> Fields:
        """All that is bound here, with what the outer scopes have; never changed.

        Binding makes another mapping: whoever keeps this one keeps it as it is.
        """
        # First this and then what was merged with it, as another thread writes them
        # the other way round.
        seen = self._seen
        merged = self._merged
        # The usual one: every event in it comes by here.
        if merged is not None and self.outer is None and not self.is_over:
            return merged
        around = self._fields_around()
        if self.is_over:
            return around
        # The same object is the same fields: nobody has bound anything there since.
        if merged is None or around is not seen:
            with self._lock:
                merged = _laid_over(around, self._own) if self._own else around
                self._merged, self._seen = merged, around
        return merged

    def put(self, fields: Mapping[str, Any]) -> None:
        """Bind fields; None takes one out, also where an outer scope has it.

        Any thread may do so.
        """
        with self._lock:
            self._own = _joined(self._own, fields)
            self._merged = None

    def with_fields(self, fields: Mapping[str, Any]) -> "Scope":
        """Make a scope like this one, in the same place, with more fields."""
        return Scope(self.outer, self.kind, _joined(self._own, fields))

    def takes_from_here(self) -> bool:
        """Tell whether what is bound here goes into this scope, and not beside it."""
        if self.kind is not Kind.AROUND:
            return self.kind is not Kind.LOCAL
        return self._thread == get_ident() and not _runs_loop()

    def still_open(self) -> "Scope | None":
        """Give this scope, or the innermost around it that is not over."""
        if not self.is_over:
            return self
        return None if self.outer is None else self.outer.still_open()

    def outwards(self) -> "Iterator[Scope]":
        """Go through this scope and all that it lies in."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in this scope again, also where its context is not, as in a stream."""
        token = innermost.set(self)
        try:
            yield
        finally:
            innermost.reset(token)

    def _fields_around(self) -> Fields:
        if self.outer is None:
            return _NOTHING
        outer = self.outer.still_open()
        return _NOTHING if outer is None else outer.fields

    def __repr__(self) -> str:
        return f"<Scope {self.kind.name.lower()}, {len(self.fields)} fields>"


class Opened:
    """Opens a scope for a block: ``with Opened(fields) as scope:``.

    What was started in the block, tasks and functions in threads, keeps the scope after
    the block's end.

    Args:
        fields: bound from the beginning.
        kind: who sees what is bound there later.
        alone: see nothing of what is bound around the block.
    """

    __slots__ = ("_alone", "_fields", "_kind", "_scope", "_token")

    def __init__(
        self,
        fields: Mapping[str, Any] = _NOTHING,
        kind: Kind = Kind.SHARED,
        *,
        alone: bool = False,
    ) -> None:
        self._fields = fields
        self._kind = kind
        self._alone = alone
        self._scope: Scope | None = None
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> Scope:
        if self._token is not None:
            raise RuntimeError("this scope is open already: open another one")
        kind = self._kind
        if kind is Kind.AROUND and _runs_loop():
            kind = Kind.SHARED
        here = None if self._alone else innermost.get()
        outer = None if here is None else self._around(here)
        self._scope = scope = Scope(outer, kind, self._fields)
        self._token = innermost.set(scope)
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
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

    def _around(self, here: Scope) -> Scope | None:
        outer = here.still_open()
        return outer if outer is None or outer.depth < _DEEPEST else _flat(outer)


class OpenedRequest(Opened):
    """Opens the scope of a request, which lies in no other request's.

    Args:
        request: what the framework keeps of this request; it is told there, so that
            another middleware for the same request opens its scope within this one.
        fields: bound from the beginning.
        owns_context: whether this context was made for this request; where it may have
            served others, what was bound in it without a scope is left out.
        key: under which it is told there.
    """

    __slots__ = ("_key", "_owns_context", "_request")

    def __init__(
        self,
        request: MutableMapping[Any, Any],
        fields: Mapping[str, Any] = _NOTHING,
        *,
        owns_context: bool,
        key: Hashable = _KEY,
    ) -> None:
        super().__init__(fields, Kind.REQUEST)
        self._request = request
        self._key = key
        self._owns_context = owns_context

    def __enter__(self) -> Scope:
        scope = super().__enter__()
        self._request[self._key] = scope
        return scope

    def _around(self, here: Scope) -> Scope | None:
        if is_in_request(self._request, self._key):
            return super()._around(here)
        return around_request(owns_context=self._owns_context)


def is_in_request(request: Mapping[Any, Any], key: Hashable = _KEY) -> bool:
    """Tell whether a scope is open here that was opened for this very request."""
    told = request.get(key)
    if told is None:
        return False
    here = _innermost()
    return here is not None and any(one is told for one in here.outwards())


def around_request(*, owns_context: bool) -> Scope | None:
    """Give the scope that one for a new request lies in; see `OpenedRequest`."""
    found = _innermost()
    for scope in found.outwards() if found is not None else ():
        if scope.kind is Kind.REQUEST:
            # The server goes on in what an earlier one has left.
            found, owns_context = scope.outer, False
    while found is not None and found.kind is Kind.LOCAL and not owns_context:
        found = found.outer
    return found


innermost: Final[ContextVar[Scope | None]] = ContextVar("amplitude_async", default=None)
"""The scope that was opened last where it is asked; None, for most, where none is."""


def fields_here() -> Fields | None:
    """Give what is bound here, never changed later; None where nothing is."""
    scope = _innermost()
    return None if scope is None else scope.fields or None


def put_here(fields: Mapping[str, Any]) -> None:
    """Bind fields in the scope that is open here, or else for this context alone."""
    scope = _innermost()
    if scope is not None and scope.kind is Kind.LOCAL:
        # Other contexts may hold a copy of this one: they keep what they have.
        innermost.set(scope.with_fields(fields))
    elif scope is not None and scope.takes_from_here():
        scope.put(fields)
    else:
        innermost.set(Scope(scope, Kind.LOCAL, _joined({}, fields)))


def _flat(scope: Scope) -> Scope:
    """Make one scope of many: tasks that start each other from blocks have no end."""
    is_request = any(one.kind is Kind.REQUEST for one in scope.outwards())
    return Scope(None, Kind.REQUEST if is_request else Kind.SHARED, scope.fields)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Fields:
    """Lay fields over others; dicts that merge do so one level, None takes out."""
    joined = _joined(below, above)
    for name, value in above.items():
        if value is None:
            del joined[name]
    return Fields(joined)


def _joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**below, **above}
    if below and not MERGED.isdisjoint(above):
        for name in MERGED:
            lower, upper = below.get(name), above.get(name)
            if isinstance(lower, dict) and isinstance(upper, dict):
                joined[name] = {**lower, **upper}
    return joined


def _innermost() -> Scope | None:
    scope = innermost.get()
    return None if scope is None else scope.still_open()


def _runs_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
