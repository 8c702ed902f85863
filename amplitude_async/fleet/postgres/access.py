"""Where the database is: read early, and its password shown to nobody."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from amplitude_async.config import near_miss
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.redaction import MaskedText
from amplitude_async.shown import kind_of, shown

__all__ = ["Access", "Host", "read_dsn"]

SCHEMES: Final = ("postgresql", "postgres")
PORT: Final = 5432
LAST_PORT: Final = 65_535
LONGEST: Final = 4_096
EXAMPLE: Final = "postgresql://user:password@host:5432/database"
_SSL_MODES: Final = (
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
)
# What the client library understands; any other name is a setting of the server's.
_KNOWN: Final = (
    "database",
    "dbname",
    "gsslib",
    "host",
    "krbsrvname",
    "passfile",
    "password",
    "port",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
    "user",
)
# A standby takes no chunk.
_TARGETS: Final = ("any", "primary", "read-write")

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Access:
    """One database, on one of some hosts."""

    dsn: MaskedText
    hosts: tuple[Host, ...]
    """In the order in which they are tried; a path is the folder of a socket."""
    database: str
    user: str
    password: MaskedText
    options: Mapping[str, str] = field(repr=False)
    """What stood behind the question mark."""

    def __str__(self) -> str:
        return f"{_listed(self.hosts)}/{self.database}"


def read_dsn(dsn: Any) -> Access:
    """Read the address of a database.

    Raises:
        ConfigurationError: it cannot be one; its password is not in the message.
    """
    if not isinstance(dsn, str):
        raise _wrong(f"is a {kind_of(dsn)}, not text")
    text = dsn.strip()
    if not text.isprintable() or " " in text or len(text) > LONGEST:
        raise _wrong(
            "has blanks, line ends or too many characters: percent-encode them"
        )
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _wrong("cannot be read: is a bracket missing?") from None
    if parts.scheme not in SCHEMES:
        # What stands before the colon may be a user of a DSN without scheme.
        raise _wrong("has a scheme other than postgresql://")
    if parts.fragment or "#" in text or parts.netloc.count("@") > 1:
        raise _wrong("has # or a second @: percent-encode those of the password")
    options = _options(parts)
    hosts = _hosts(parts.netloc.rpartition("@")[2], options)
    named = options.get("dbname") or options.get("database")
    database = unquote(parts.path.removeprefix("/")) or named or ""
    if not database:
        raise _wrong("names no database")
    if "/" in database:
        raise _wrong("has more than one / in its path: percent-encode the password's")
    userinfo, _, _ = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    return Access(
        MaskedText(text),
        hosts,
        database,
        user=unquote(user) or options.get("user", ""),
        password=MaskedText(unquote(password) or options.get("password", "")),
        options=options,
    )


def _options(parts: SplitResult) -> dict[str, str]:
    try:
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _wrong("has options that are not written name=value") from None
    for name in options.keys() - set(_KNOWN):
        near = near_miss(name, _KNOWN)
        if near is not None:
            raise _wrong(f"has the option {shown(name)}; did you mean {near}?")
    for name, allowed in (
        ("sslmode", _SSL_MODES),
        ("target_session_attrs", _TARGETS),
    ):
        value = options.get(name)
        if value is not None and value not in allowed:
            msg = f"has {name}={shown(value)}: use one of {', '.join(allowed)}"
            raise _wrong(msg)
    return options


def _hosts(listed: str, options: dict[str, str]) -> tuple[Host, ...]:
    given = listed or options.get("host", "")
    ports = options.get("port", "").split(",")
    found = []
    for index, one in enumerate(given.split(",")):
        fallback = ports[index] if len(ports) > 1 and index < len(ports) else ports[0]
        found.append(_host(one, fallback))
    return tuple(found)


def _host(text: str, fallback: str) -> Host:
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if rest and not rest.startswith(":"):
            raise _wrong("has an address in brackets with something behind it")
    else:
        name, colon, port = text.partition(":")
        if colon and not port:
            raise _wrong("has a host with a colon and no port")
    name = unquote(name)
    if not name:
        raise _wrong("names no host, or one of several is empty")
    number = port or fallback or str(PORT)
    # Of a password with a slash in it the first part looks like a port.
    if not number.isascii() or not number.isdigit():
        raise _wrong("has a port that is no number: is a / or : not percent-encoded?")
    if len(number) > len(str(LAST_PORT)) or not 1 <= int(number) <= LAST_PORT:
        raise _wrong(f"has port {shown(number)}: use 1 to {LAST_PORT}")
    return name, int(number)


def _listed(hosts: tuple[Host, ...]) -> str:
    return ",".join([f"{name}:{port}" for name, port in hosts])


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"dsn {what}; write it like {EXAMPLE}")
