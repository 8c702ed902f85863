"""Where commands send to: options of the command line over ``AMPLITUDE_*``."""

import sys
from typing import Annotated, Any, Final, NamedTuple

import typer
from pydantic import SecretStr
from yarl import URL

from amplitude_async.amplitude.config import Config
from amplitude_async.cli.terminal import refusal
from amplitude_async.config import read_environment
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.redaction import seal

__all__ = [
    "LOCAL_HOSTS",
    "ApiKey",
    "Asked",
    "ServerUrl",
    "Zone",
    "config_of",
    "is_local",
    "options_of",
    "without_path",
]

LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""Where an emulator listens, which takes any key."""

_OF_SERVICES: Final = (
    "flush_max_retries",
    "max_event_age",
    "max_storage_bytes",
    "max_storage_capacity",
    "overflow",
    "overflow_timeout",
    "truncate_strings",
)
"""What lets a service shed, give up or cut events; a command does none of these."""

_PREFIX: Final = "AMPLITUDE_"
_LOCAL_KEY: Final = "any-key-for-the-emulator"
_PATH: Final = "/2/httpapi"

ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        help="The project's key. Others see it in ps: AMPLITUDE_API_KEY is better.",
    ),
]
Zone = Annotated[
    str | None, typer.Option("--zone", help="US or EU; AMPLITUDE_SERVER_ZONE, or US.")
]
ServerUrl = Annotated[
    str | None,
    typer.Option(
        "--server-url",
        metavar="URL",
        help="Send there instead, as to an emulator; AMPLITUDE_SERVER_URL.",
    ),
]


class Asked(NamedTuple):
    """What the command line says about where to send."""

    api_key: SecretStr | None = None
    zone: str | None = None
    server_url: str | None = None
    use_batch: bool = False
    min_id_length: int | None = None

    @classmethod
    def of(cls, api_key: str | None, *rest: Any) -> "Asked":
        """Take the options, the key masked at once and not without a warning."""
        if api_key is None:
            return cls(None, *rest)
        key = SecretStr(api_key)
        del api_key
        sys.stderr.write(
            "Warning: others on this machine can read --api-key in the list of "
            "processes: set AMPLITUDE_API_KEY instead\n"
        )
        return cls(key, *rest)


def options_of(asked: Asked) -> dict[str, Any]:
    """Read the options from the environment and the command line.

    Raises:
        ConfigurationError: a variable that should hold JSON holds none.
    """
    found = read_environment(Config, _PREFIX)
    given = {
        "api_key": asked.api_key,
        "server_zone": asked.zone,
        "server_url": asked.server_url,
        "use_batch": asked.use_batch or None,
        "min_id_length": asked.min_id_length,
    }
    found |= {name: value for name, value in given.items() if value is not None}
    url = found.get("server_url")
    if isinstance(url, str):
        found["server_url"] = with_path(url)
        if "api_key" not in found and is_local(url):
            found["api_key"] = seal(_LOCAL_KEY)
    return found


def config_of(asked: Asked, *, needs_key: bool = True, **fixed: Any) -> Config:
    """Make the configuration of a command.

    Args:
        asked: what the command line says.
        needs_key: False where nothing is sent.
        fixed: options that the command decides.

    Raises:
        typer.Exit: with 2, where an option or variable is wrong or there is no key.
    """
    try:
        found = options_of(asked)
        for name in _OF_SERVICES:
            found.pop(name, None)
        found |= fixed
        if "api_key" not in found and not needs_key:
            found["api_key"] = seal(_LOCAL_KEY)
        config = Config(**found)
    except ConfigurationError as error:
        raise refusal(str(error)) from None
    if config.opt_out:
        raise refusal("AMPLITUDE_OPT_OUT is set, so that nothing is sent: unset it")
    if config.api_key is None:
        raise refusal(
            "there is no key: set AMPLITUDE_API_KEY; an emulator on this machine needs "
            "none, only --server-url or AMPLITUDE_SERVER_URL"
        )
    return config


def with_path(url: str) -> str:
    """Complete an address that names a server alone: nobody takes events at ``/``."""
    try:
        parsed = URL(url)
    except ValueError:
        return url  # the configuration says what is wrong with it
    if parsed.host and parsed.path in {"", "/"} and not parsed.query_string:
        return url.rstrip("/") + _PATH
    return url


def without_path(url: str) -> str:
    """Give the address of the server alone."""
    parsed = URL(url)
    return str(parsed.origin()) if parsed.host and parsed.scheme else url


def is_local(url: str) -> bool:
    """Tell whether an address is on this machine, where emulators listen."""
    try:
        return URL(url).host in LOCAL_HOSTS
    except ValueError:
        return False
