"""What is secret, and how it stays out of every text that goes out.

Text is cleaned by a ``Redactor`` on its way to a log line, a result or an error. Values
that must be held in plain (a key, a header, a body) are held in types whose ``repr`` is
masked, since debuggers and error reporters print the local variables of a traceback.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, Final, Self, SupportsIndex, TypeVar
from urllib.parse import quote, quote_plus, unquote

__all__ = [
    "MASK",
    "Body",
    "MaskedText",
    "Redactor",
    "masked_url",
    "seal",
    "secrets_of_headers",
    "secrets_of_url",
    "without_ids",
    "without_inputs",
    "without_values",
]

MASK: Final = "**********"
# A shorter secret is a placeholder such as "key": taken out, it would garble words.
SHORTEST: Final = 8
SHORTEST_PASSWORD: Final = 4
# As short as the server takes them by default; numbers such as 42 are everywhere.
SHORTEST_ID: Final = 5
_LONGEST_MESSAGE = 1_000
_USERINFO = re.compile(r"(\w://)[^/?#\s'\"]*@")
_BEFORE_HOST = re.compile(r"^(\w*:?//)?.*@", re.DOTALL)
# Followed by what no word of prose is like.
_CREDENTIALS = re.compile(
    r"\b((?i:basic|bearer))\s+(?=\S*(?:\d|[a-z][A-Z]|=))[\w+/=.~-]{8,}"
)
# What `repr` wrote of a text; cut off in the middle, it goes on to the end.
_LITERAL = re.compile(
    r"""(?<!\w)(?:'(?:[^'\\]|\\.)*(?:'(?!\w)|$)|"(?:[^"\\]|\\.)*(?:"(?!\w)|$))""",
    re.DOTALL,
)
# "field=value: What is wrong with it", at the start or after others of the kind.
_ASSIGNED = re.compile(r"(^|; )(\w[^\s=]*)=.*?(?=: [A-Z][a-z]+ [a-z]|$)", re.DOTALL)
# What pydantic says of a value it refused: brackets and commas may be part of it.
_INPUT = re.compile(r"input_value=(?:.*(?=, input_type=)|.*)")
# Headers whose values say what is sent, and who sends it.
_HARMLESS_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    }
)

T = TypeVar("T")


class MaskedText(str):
    """Text that is used as any other and shows itself to nobody."""

    __slots__ = ("shown",)
    shown: str

    def __new__(cls, value: str = "", shown: str = MASK) -> Self:
        """Hide a text behind what may be shown of it."""
        made = super().__new__(cls, value)
        made.shown = shown
        return made

    def __repr__(self) -> str:
        # Half-built, as while it is unpickled, it has nothing to show yet.
        return repr(getattr(self, "shown", MASK))

    def __getitem__(self, key: SupportsIndex | slice) -> "MaskedText":
        # What cuts long values before it prints them, cuts this too.
        return MaskedText(super().__getitem__(key), self.shown)


class Body(bytes):
    """The bytes of a request: they hold a key and events, and show their number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        return Body(part) if isinstance(part, bytes) else part


class Redactor:
    """Takes secrets out of texts: those it is told, and what looks like credentials.

    Args:
        secrets: each text that must not appear; one of three characters is left alone.
    """

    __slots__ = ("_forms", "_known")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = (MaskedText(s) for s in secrets if len(s) >= SHORTEST_PASSWORD)
        self._known = frozenset(known)
        forms = {form for secret in self._known for form in _forms(str(secret))}
        # The longest first: one secret may be a part of another.
        ordered = sorted(forms, key=len, reverse=True)
        self._forms = [MaskedText(form) for form in ordered]

    def __call__(self, text: str) -> str:
        """Give the text without secrets."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        text = _USERINFO.sub(r"\1", text)
        return _CREDENTIALS.sub(rf"\1 {MASK}", text)

    def body(self, body: bytes) -> bytes:
        """Give an answer's body without secrets; JSON stays JSON."""
        text = given = body.decode("utf-8", "replace")
        if "\\" in text:
            # Escapes have many forms, and half of one is no JSON any more.
            with suppress(ValueError, RecursionError):
                tree = json.loads(text)
                if self(plain := json.dumps(tree, ensure_ascii=False)) != plain:
                    text = json.dumps(self._tree(tree))
        clean = self(text)
        return body if clean == given else clean.encode("utf-8", "replace")

    def _tree(self, value: Any) -> Any:
        if isinstance(value, str):
            return self(value)
        if isinstance(value, list):
            return [self._tree(item) for item in value]
        if isinstance(value, dict):
            return {self(name): self._tree(item) for name, item in value.items()}
        return value

    def knowing(self, secrets: Iterable[str]) -> "Redactor":
        """Make one that knows these as well."""
        return Redactor(chain(self._known, secrets))

    def __repr__(self) -> str:
        return "<Redactor>"


def masked_url(url: str) -> str:
    """Give an address whose ``repr`` has no query, fragment, user or password."""
    bare, *hidden = re.split(r"[?#]", url, maxsplit=1)
    # Written wrongly, a password may hold anything: what could be one is not shown.
    shown = _BEFORE_HOST.sub(r"\1", bare)
    if hidden and "@" in hidden[0]:
        shown = MASK
    elif hidden:
        shown = f"{shown}?{MASK}"
    return url if shown == url else MaskedText(url, shown)


def without_values(message: str) -> str:
    """Give a message about an event as a log may have it: the names, no values."""
    # Words of a plugin's may be of any length, and looking through takes the square.
    message = without_inputs(_LITERAL.sub("(hidden)", message[:_LONGEST_MESSAGE]))
    return _ASSIGNED.sub(r"\1\2=(hidden)", message)


def without_inputs(text: str) -> str:
    """Give an error's text without the values that pydantic repeats in it."""
    return _INPUT.sub("input_value=(hidden)", text)


def without_ids(message: str, ids: Iterable[str | None]) -> str:
    """Give a server's text without the ids of those it speaks of."""
    for known in ids:
        # What is no text got past every check, and must not stop the queue.
        if type(known) is str and len(known) >= SHORTEST_ID and known in message:
            message = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", "(hidden)", message)
    return message


def seal(value: T) -> T:
    """Mask the texts and bytes in a value; what it is equal to stays the same."""
    sealed: Any = value
    if isinstance(value, MaskedText | Body):
        pass
    elif isinstance(value, str):
        sealed = MaskedText(value)
    elif isinstance(value, bytes):
        sealed = Body(value)
    elif isinstance(value, list):
        sealed = [seal(item) for item in value]
    elif isinstance(value, tuple):
        sealed = tuple(seal(item) for item in value)
    elif isinstance(value, Mapping):
        sealed = {name: seal(item) for name, item in value.items()}
    return sealed  # type: ignore[no-any-return]


def secrets_of_headers(headers: Mapping[str, str]) -> Iterable[str]:
    """Name what headers hold that is nobody else's business."""
    for name, value in headers.items():
        if name.lower() not in _HARMLESS_HEADERS and len(value) >= SHORTEST:
            yield value
            # "Bearer TOKEN": a server may repeat the token alone.
            parts = value.split()
            if name.lower() == "cookie":
                parts = [part.partition("=")[2].rstrip(";") for part in parts]
            yield from (part for part in parts if len(part) >= SHORTEST)


def secrets_of_url(url: str) -> Iterable[str]:
    """Name what an address holds beside host and path, even where it is none."""
    before_query, _, query = url.partition("?")
    userinfo, at, _ = url.rpartition("@")
    if at:
        userinfo = userinfo.rpartition("//")[2]
        user, _, password = userinfo.partition(":")
        plain = f"{unquote(user)}:{unquote(password)}"
        yield from (userinfo, password, unquote(password), plain)
        yield base64.b64encode(plain.encode("utf-8", "replace")).decode("ascii")
        yield from (name for name in (user, unquote(user)) if len(name) >= SHORTEST)
    if query and "@" not in before_query:
        yield query
        values = (part.partition("=")[2] for part in re.split(r"[&#]", query))
        yield from (v for value in values for v in (value, unquote(value)))


def _forms(secret: str) -> set[str]:
    """Name the ways in which a server may write a secret down."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        quote(secret, safe="", errors="replace"),
        quote(secret, errors="replace"),
        quote_plus(secret, errors="replace"),
    }
