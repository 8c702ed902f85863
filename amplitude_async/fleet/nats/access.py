"""Where servers are, and what they want to know: read early, and shown to nobody."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.redaction import MaskedText, masked_url
from amplitude_async.shown import shown

__all__ = ["Access", "read_servers"]

SCHEMES: Final = ("nats", "tls")
PORT: Final = 4222


@dataclass(frozen=True, slots=True)
class Access:
    """Servers of one cluster and the credentials for all of them."""

    servers: tuple[MaskedText, ...]
    hosts: tuple[str, ...]
    """The same as ``host:port``, without a secret."""
    user: MaskedText
    password: MaskedText
    token: MaskedText
    credentials: str | None
    tls: ssl.SSLContext | None

    @property
    def encrypted(self) -> bool:
        """True where an address asks for TLS."""
        return any(str(server).startswith("tls://") for server in self.servers)


def read_servers(
    servers: str | Sequence[str],
    *,
    token: str | None = None,
    credentials: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> Access:
    """Read ``nats://user:password@a,b,c``, or a list of addresses.

    Scheme, user and password of the first go for those that have none.

    Raises:
        ConfigurationError: an address cannot be read.
    """
    given = servers.split(",") if isinstance(servers, str) else list(servers)
    parts = [part.strip() for part in given if isinstance(part, str) and part.strip()]
    if not parts or len(parts) != len(given):
        msg = "servers= has an empty address: write 'nats://one:4222,two:4222'"
        raise ConfigurationError(msg)
    scheme, userinfo, hosts = "", "", []
    for part in parts:
        address = part if "://" in part else f"{scheme or 'nats'}://{part}"
        found, who, host = _address(address)
        scheme, userinfo = scheme or found, userinfo or who
        if found != scheme:
            msg = "servers= mixes nats:// and tls://: use one of them for all"
            raise ConfigurationError(msg)
        hosts.append(host)
    user, _, password = userinfo.partition(":")
    if user and not password and not token:
        user, token = "", unquote(user)  # that is how a token is written
    return Access(
        tuple(MaskedText(f"{scheme}://{host}", f"{scheme}://{host}") for host in hosts),
        tuple(hosts),
        MaskedText(unquote(user)),
        MaskedText(unquote(password)),
        MaskedText(token or ""),
        credentials,
        tls,
    )


def _address(address: str) -> tuple[str, str, str]:
    """Take an address apart: scheme, user and password, host and port."""
    masked = shown(masked_url(address))
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host, port, parts = None, PORT, urlsplit("")
    if not host or parts.scheme not in SCHEMES:
        msg = f"servers= has {masked}, which is no address: write 'nats://host:4222'"
        raise ConfigurationError(msg)
    if parts.path.strip("/") or parts.query or parts.fragment:
        msg = f"servers= has {masked}: nothing may follow host and port"
        raise ConfigurationError(msg)
    name = f"[{host}]" if ":" in host else host
    return parts.scheme, parts.netloc.rpartition("@")[0], f"{name}:{port}"
