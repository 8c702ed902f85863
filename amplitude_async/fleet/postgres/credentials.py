"""What a connection needs from files and the environment, read beside the loop.

The client library would read the same, in the middle of a coroutine.
"""

import getpass
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from amplitude_async.fleet.postgres.access import Access, Host
from amplitude_async.redaction import MaskedText

__all__ = ["Credentials", "read_credentials"]

_OPTIONAL: Final = ("allow", "prefer")
_ESCAPED: Final = re.compile(r"\\(.)")
_FIELD: Final = re.compile(r"(?:[^:\\]|\\.)*")


class Credentials(NamedTuple):
    """Who connects, and how the connection is encrypted."""

    user: str
    password: MaskedText
    tls: ssl.SSLContext | None
    may_be_plain: bool
    """True where a server without TLS is taken as it is."""


def read_credentials(access: Access, host: Host) -> Credentials:
    """Read files and environment: not on a loop.

    Raises:
        OSError: a certificate that the DSN names cannot be read.
    """
    options = access.options
    user = access.user or os.environ.get("PGUSER") or getpass.getuser()
    password = access.password or MaskedText(os.environ.get("PGPASSWORD", ""))
    if not password:
        password = _from_file(access, host, user)
    mode = options.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
    if mode == "disable" or host[0].startswith("/"):
        return Credentials(user, password, None, may_be_plain=True)
    tls = _context(mode, options)
    return Credentials(user, password, tls, may_be_plain=mode in _OPTIONAL)


def _from_file(access: Access, host: Host, user: str) -> MaskedText:
    """Look the password up where libpq does."""
    given = access.options.get("passfile") or os.environ.get("PGPASSFILE")
    path = Path(given) if given else _home() / ".pgpass"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return MaskedText()
    wanted = (host[0], str(host[1]), access.database, user)
    for line in lines:
        fields = [_ESCAPED.sub(r"\1", field) for field in _fields(line)]
        if line.startswith("#") or len(fields) < 5:
            continue
        pairs = zip(fields, wanted, strict=False)
        if all(field in {"*", value} for field, value in pairs):
            return MaskedText(fields[4])
    return MaskedText()


def _fields(line: str) -> list[str]:
    found, start = [], 0
    while start <= len(line):
        match = _FIELD.match(line, start)
        if match is None:
            break
        found.append(match.group())
        start = match.end() + 1
    return found


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def _context(mode: str, options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    root = _file(options, "sslrootcert", usual="root.crt")
    if mode.startswith("verify") or (root is not None and mode == "require"):
        if root is None:
            msg = f"sslmode={mode} needs ~/.postgresql/root.crt, or sslrootcert="
            raise OSError(msg)
        context.load_verify_locations(cafile=root)
    else:
        context.verify_mode = ssl.CERT_NONE
    revoked = _file(options, "sslcrl", usual="root.crl")
    if revoked is not None and context.verify_mode != ssl.CERT_NONE:
        context.load_verify_locations(cafile=revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    certificate = _file(options, "sslcert", usual="postgresql.crt")
    if certificate is not None:
        key = _file(options, "sslkey", usual="postgresql.key")
        secret = options.get("sslpassword", "")
        context.load_cert_chain(certificate, keyfile=key, password=secret)
    return context


def _file(options: Mapping[str, str], option: str, *, usual: str) -> str | None:
    named = options.get(option) or os.environ.get(f"PG{option.upper()}")
    if named:
        return named
    path = _home() / ".postgresql" / usual
    return str(path) if path.exists() else None
