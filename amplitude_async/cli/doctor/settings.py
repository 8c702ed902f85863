"""What can be said of the configuration without a network."""

import platform
import re
import ssl
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

from yarl import URL

from amplitude_async import Config, ServerZone, __version__
from amplitude_async.amplitude.config import OFFICIAL_URLS
from amplitude_async.cli.connection import is_local
from amplitude_async.cli.doctor.findings import Finding, Verdict
from amplitude_async.config import read_environment

__all__ = ["configured", "versions"]

_KEY: Final = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
_FROM: Final = "copy it from the project's settings in Amplitude, without quotes"


def versions() -> Finding:
    """Say what is installed."""
    named = [f"Python {platform.python_version()}", f"amplitude-async {__version__}"]
    for name in ("aiohttp", "pydantic"):
        try:
            named.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            named.append(f"{name} of no known version")
    named.append(ssl.OPENSSL_VERSION.rsplit(" ", 3)[0])
    fast = "with" if find_spec("isal") else "without"
    return Finding("versions", Verdict.OK, f"{', '.join(named)}; {fast} fast gzip")


def configured(config: Config) -> Iterator[Finding]:
    """Look at the key and at where it goes."""
    if config.api_key is not None:
        yield _key(config.api_key.get_secret_value(), config)
    yield _zone(config)


def _key(key: str, config: Config) -> Finding:
    given = read_environment(Config, "AMPLITUDE_").get("api_key")
    if is_local(config.url):
        # Whether one was given or filled in: it is all the same there.
        where = "AMPLITUDE_API_KEY is set" if given else "none is needed"
        return Finding("key", Verdict.OK, f"{where}: an emulator takes any key")
    if _KEY.fullmatch(key):
        text = "it has the form of a key: 32 hexadecimal digits"
        return Finding("key", Verdict.OK, text)
    text = f"it has {len(key)} characters, where keys have 32 hexadecimal digits"
    if key != key.strip() or key.strip("'\"") != key:
        text = "there are blanks or quotes around it"
    return Finding("key", Verdict.WARN, text, _FROM)


def _zone(config: Config) -> Finding:
    url, zone = config.url, config.server_zone
    shown = str(URL(url).with_query(None))
    if config.server_url is None:
        return Finding("zone", Verdict.OK, f"{zone}, {shown}")
    other = _other_zone(url, zone)
    if other is not None:
        return Finding(
            "zone",
            Verdict.WARN,
            f"AMPLITUDE_SERVER_ZONE is {zone}, but {shown} is in {other}",
            "leave AMPLITUDE_SERVER_URL out, or set the zone to where the project is",
        )
    return Finding("zone", Verdict.OK, f"{shown} wins over the zone {zone}")


def _other_zone(url: str, zone: ServerZone) -> str | None:
    if url not in OFFICIAL_URLS:
        return None
    found = ServerZone.EU if ".eu." in url else ServerZone.US
    return None if found is zone else str(found)
