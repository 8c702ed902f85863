"""Configuration of the Amplitude client."""

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, Unpack

from pydantic import Field, SecretStr, model_validator

from amplitude_async.amplitude.events import IngestionMetadata, Plan
from amplitude_async.config import DeliveryConfig, DeliveryFields, sealed
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.exceptions import ConfigurationError
from amplitude_async.redaction import seal

__all__ = ["OFFICIAL_URLS", "Config", "ConfigFields", "ServerZone", "only_one"]


class ServerZone(StrEnum):
    """Where the Amplitude project lives."""

    US = "US"
    EU = "EU"

    @classmethod
    def _missing_(cls, value: object) -> "ServerZone | None":
        if isinstance(value, str):
            return cls.__members__.get(value.strip().upper())
        return None


# Amplitude HTTP V2 API and Batch Event Upload API, section "Endpoints".
_URLS: Final = {
    (ServerZone.US, False): "https://api2.amplitude.com/2/httpapi",
    (ServerZone.US, True): "https://api2.amplitude.com/batch",
    (ServerZone.EU, False): "https://api.eu.amplitude.com/2/httpapi",
    (ServerZone.EU, True): "https://api.eu.amplitude.com/batch",
}
OFFICIAL_URLS: Final = frozenset(_URLS.values())
"""The four addresses that are known to take gzip bodies."""


class Config(DeliveryConfig):
    """Options of ``Amplitude``; frozen, validated once.

    Raises:
        ConfigurationError: a value is wrong; field, value and remedy are named.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            api_key: str | SecretStr | None = None,
            **options: "Unpack[ConfigFields]",
        ) -> None: ...

    else:

        def __init__(self, /, *api_key: str, **options: Any) -> None:
            # The key by place, as the official SDKs take it; one given is told from
            # none at all, since options that were set win over a configuration.
            options = sealed(type(self), options)  # no local variable shows a key
            if api_key:
                api_key = seal(api_key)
                if len(api_key) > 1 or "api_key" in options:
                    msg = "Config takes the api_key once, and the rest by name"
                    raise TypeError(msg)
                options["api_key"] = api_key[0]
            super().__init__(**options)

    api_key: SecretStr | None = None
    """The project's API key; a client needs one unless ``opt_out`` is true."""
    server_zone: ServerZone = ServerZone.US
    """US or EU, in any case: where the project lives."""
    use_batch: bool = False
    """True sends to the Batch API: larger requests, higher limits, slower ingestion."""
    min_id_length: Annotated[int, Field(ge=1)] | None = None
    """Shortest id the server takes, sent with each request; its own default is 5."""
    truncate_strings: Annotated[int, Field(ge=1)] | None = None
    """Cut property strings to so many characters; ids and user_agent never."""
    plan: Plan | None = None
    """Tracking plan filled into events that have none."""
    ingestion_metadata: IngestionMetadata | None = None
    """Ingestion metadata filled into events that have none."""

    @model_validator(mode="after")
    def _key_is_usable(self) -> Self:
        if self.api_key is None:
            return self
        if not self.api_key.get_secret_value().strip():
            msg = "api_key is empty: pass the project's API key"
            raise ValueError(msg)
        if not self.api_key.get_secret_value().isprintable():
            msg = "api_key holds a line end or another control character: take it out"
            raise ValueError(msg)
        return self

    def check_key(self) -> None:
        """Make sure that there is a key, once all options came together.

        Nothing is sent, and so none is needed, while a test captures events.

        Raises:
            ConfigurationError: there is none, and events are to be sent.
        """
        if self.api_key is None and self._needs_key and not INTERCEPTION.capturing:
            msg = (
                "api_key is missing: pass the project's API key, or opt_out=True "
                "for development and CI"
            )
            raise ConfigurationError(msg)

    @property
    def _needs_key(self) -> bool:
        """False where nothing is sent to a server from here."""
        return not self.opt_out and self.handover is None

    @property
    def url(self) -> str:
        """Where requests go: ``server_url``, else by zone and ``use_batch``."""
        return self.server_url or _URLS[self.server_zone, self.use_batch]

    @property
    def compresses(self) -> bool:
        """True where request bodies above 2 KiB are sent as gzip."""
        asked = "compression" in self.model_fields_set or self.url in OFFICIAL_URLS
        return self.compression == "gzip" and asked

    @property
    def fingerprint(self) -> str:
        """A hash that tells projects apart and does not give the key away."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"amplitude_async")
        return digest.hexdigest()


def only_one(by_place: Config, config: Config | None) -> Config:
    """Take the configuration that stands in the place of the key.

    Raises:
        TypeError: There is another one.
    """
    if config is not None:
        msg = "config was given twice: pass one Config"
        raise TypeError(msg)
    return by_place


class ConfigFields(DeliveryFields, total=False):
    """Keyword options of ``Amplitude``; the meanings stand at ``Config``."""

    server_zone: ServerZone | str
    use_batch: bool
    min_id_length: int | None
    truncate_strings: int | None
    plan: Plan | dict[str, Any] | None
    ingestion_metadata: IngestionMetadata | dict[str, Any] | None
