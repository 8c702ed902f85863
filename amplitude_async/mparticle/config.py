"""Configuration of the mParticle client."""

import base64
import hashlib
from typing import Any, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from amplitude_async.config import DeliveryConfig, DeliveryFields, parse_http_url
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.mparticle.models.context import DataPlanContext
from amplitude_async.mparticle.models.enums import Pod
from amplitude_async.redaction import masked_url

__all__ = ["MParticleConfig", "MParticleConfigFields", "MParticleFields"]


# mParticle HTTP API documentation, section "Endpoint".
DEFAULT_BASE_URL: Final = "https://s2s.mparticle.com/v2"


class MParticleConfig(DeliveryConfig):
    """Options of ``MParticle``; frozen, validated once.

    Raises:
        ConfigurationError: a value is wrong; field, value and remedy are named.
    """

    api_key: SecretStr | None = None
    """Key of the input; it may be absent while ``opt_out`` is true."""
    api_secret: SecretStr | None = None
    """Secret of the input."""
    environment: Literal["development", "production"] | None = None
    """What MParticleDestination puts into its batches: development or production."""
    pod: Pod | None = None
    """Data centre: us1, us2, eu1 or au1; the key's own prefix where it is None."""
    base_url: str | None = None
    """Address before "/events", for proxies and tests; wins over ``pod``."""
    data_plan: DataPlanContext | None = None
    """Data plan filled into batches that have none."""
    limits: Literal["error", "truncate", "off"] = "error"
    """What to do with values beyond mParticle's documented limits."""
    flush_queue_size: int = Field(100, ge=1, le=100)
    """So many waiting batches are sent at once: 1 to 100."""
    max_batch_size: int = Field(100, ge=1, le=100)
    """Most batches in one request: 1 to 100."""
    compression: Literal["gzip"] | None = None
    """No document says that mParticle takes compressed bodies."""

    @field_validator("pod", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("base_url")
    @classmethod
    def _usable_base(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = parse_http_url(value)
        if url.query_string or url.fragment:
            msg = "must end with its path: no query, no fragment"
            raise ValueError(msg)
        return masked_url(value.rstrip("/?#"))

    @field_validator("server_url")
    @classmethod
    def _no_server_url(cls, value: str | None) -> str | None:
        if value is not None:
            msg = "mParticle has several paths: set base_url instead"
            raise ValueError(msg)
        return None

    @model_validator(mode="after")
    def _base_has_no_password(self) -> Self:
        # Not where fields are validated: their errors repeat the value.
        if self.base_url is not None and "@" in self.base_url:
            msg = "base_url holds a user or password: pass api_key and api_secret"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _credentials_are_usable(self) -> Self:
        sends_none = self.opt_out or self.handover is not None
        needs_none = sends_none or INTERCEPTION.capturing
        if needs_none and self.api_key is None and self.api_secret is None:
            return self
        for name in ("api_key", "api_secret"):
            secret: SecretStr | None = getattr(self, name)
            if secret is None or not secret.get_secret_value().strip():
                msg = (
                    f"{name} is missing: pass the {name} of the input, or "
                    "opt_out=True and no key for development and CI"
                )
                raise ValueError(msg)
            if not secret.get_secret_value().isprintable():
                msg = f"{name} holds a line end or control character: take it out"
                raise ValueError(msg)
        if self.api_key is not None and ":" in self.api_key.get_secret_value():
            msg = "api_key holds a colon, where Basic authentication ends it: check it"
            raise ValueError(msg)
        return self

    @property
    def url(self) -> str:
        """The base of all paths."""
        if self.base_url is not None:
            return self.base_url
        key = self.api_key.get_secret_value() if self.api_key else ""
        pod = self.pod or _pod_of_key(key)
        return f"https://s2s.{pod}.mparticle.com/v2" if pod else DEFAULT_BASE_URL

    @property
    def authorization(self) -> str:
        """The value of the Authorization header: a secret."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        secret = self.api_secret.get_secret_value() if self.api_secret else ""
        return "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """A hash that tells inputs apart and does not give the key away."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"amplitude_async")
        return digest.hexdigest()


class MParticleConfigFields(DeliveryFields, total=False):
    """Keyword options of ``MParticle``; the meanings stand at ``MParticleConfig``."""

    data_plan: DataPlanContext | dict[str, Any] | None
    limits: Literal["error", "truncate", "off"]


class MParticleFields(MParticleConfigFields, total=False):
    """All of ``MParticleConfig``, also what the constructor has by name."""

    api_key: str | SecretStr | None
    api_secret: str | SecretStr | None
    environment: Literal["development", "production"] | None
    pod: Pod | str | None
    base_url: str | None


def _pod_of_key(key: str) -> Pod | None:
    """Read the pod off a key such as "eu1-..."; None for keys without a known one."""
    prefix, dash, _ = key.partition("-")
    known = {pod.value: pod for pod in Pod}
    return known.get(prefix.lower()) if dash else None
