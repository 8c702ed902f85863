"""Delivery options both clients inherit: frozen, and they fail early and clearly."""

import difflib
import inspect
import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    Self,
    TypedDict,
    TypeVar,
    get_args,
)

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.redaction import (
    SHORTEST,
    Redactor,
    masked_url,
    seal,
    secrets_of_headers,
    secrets_of_url,
)
from amplitude_async.shown import kind_of, shown

if TYPE_CHECKING:
    from yarl import URL

__all__ = [
    "DeliveryConfig",
    "DeliveryFields",
    "Overflow",
    "Seconds",
    "describe_errors",
    "merge_config",
    "near_miss",
    "parse_http_url",
    "read_environment",
    "sealed",
]

_KEY_FIELDS = frozenset({"api_key", "api_secret"})
_SECRET_FIELDS = _KEY_FIELDS | {"headers"}
_URL_FIELDS = frozenset({"server_url", "base_url"})


class Overflow(StrEnum):
    """What a verb does when the queue is full."""

    WAIT = "wait"
    """Wait for room, first come first served, at most ``overflow_timeout``."""
    DROP_NEWEST = "drop_newest"
    """Shed the event at hand."""
    DROP_OLDEST = "drop_oldest"
    """Shed the oldest waiting event to make room."""
    RAISE = "raise"
    """Raise ``QueueFullError``."""

    @classmethod
    def _missing_(cls, value: object) -> "Overflow | None":
        if isinstance(value, str):
            return cls.__members__.get(value.strip().upper())
        return None


_HOUR: Final = 3600.0
_YEAR: Final = 366 * 86_400.0
# No name of ours is half as long, and comparing takes long.
_MOST_LIKE: Final = 80

# RFC 9110, section 5.6.2: what a name of a header consists of.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LINE_ENDS: Final = re.compile(r"[\r\n\0]")


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _at_most(limit: float, words: str) -> AfterValidator:
    """Refuse a duration that can only be meant in another unit."""

    def check(value: float) -> float:
        if value > limit:
            msg = (
                f"is more than {words}: durations are seconds, this looks like "
                f"milliseconds; write {value / 1000:g}"
            )
            raise ValueError(msg)
        return value

    return AfterValidator(check)


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(ge=0, allow_inf_nan=False, strict=False),
    _at_most(_HOUR, "an hour"),
]
"""A duration: float seconds or a ``timedelta``, up to an hour."""

PositiveSeconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, allow_inf_nan=False),
    _at_most(_HOUR, "an hour"),
]

_Age = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, allow_inf_nan=False),
    _at_most(_YEAR, "a year"),
]


def near_miss(name: str, candidates: Iterable[str]) -> str | None:
    """Find the candidate that a misspelt name probably meant, or None."""
    if len(name) > _MOST_LIKE:
        return None
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[found[0]] if found else None


def describe_errors(model: type[BaseModel], error: ValidationError) -> str:
    """Turn a pydantic error into sentences that name field, value and remedy.

    Values of secret fields are never repeated.
    """
    owner, fields = model.__name__, model.model_fields
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in item["loc"]) or owner
        if item["type"] == "extra_forbidden":
            hint = near_miss(name, fields)
            meant = f"; did you mean {hint!r}?" if hint else ""
            lines.append(f"{owner} has no option {shown(name)}{meant}")
            continue
        root = str(item["loc"][0]) if item["loc"] else ""
        is_secret = root in _SECRET_FIELDS or not root
        value = "" if is_secret else f"={_shown_option(root, item['input'])}"
        reason = item["msg"].removeprefix("Value error, ")
        lines.append(f"{name}{value}: {reason}")
    return "; ".join(lines)


def _shown_option(name: str, value: object) -> str:
    """Show what was given for an option; of an address only what is text is masked."""
    if name in _URL_FIELDS and not isinstance(value, str):
        return f"<{kind_of(value)}>"
    return shown(value)


def sealed(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    """Mask the secrets among options, also those under a name that is none.

    Whoever prints the local variables of a traceback sees no key: not even where the
    options are wrong, and the traceback is that of their error.
    """
    public = model.model_fields.keys() - _SECRET_FIELDS
    return {name: _sealed(name, options[name], public) for name in options}


def _sealed(name: str, value: object, public: Collection[str]) -> object:
    if name in _URL_FIELDS:
        return masked_url(value) if isinstance(value, str) else seal(value)
    return value if name in public else seal(value)


def _keys_among(options: Mapping[str, Any]) -> Iterator[str]:
    """Name the keys among options that may be wrong."""
    for name in _KEY_FIELDS:
        key = options.get(name)
        text = key.get_secret_value() if isinstance(key, SecretStr) else key
        if isinstance(text, str) and len(text) >= SHORTEST:
            yield text


def parse_http_url(value: str) -> "URL":
    """Read an address that requests can go to.

    Raises:
        ValueError: it is no http(s) URL with a host.
    """
    from yarl import URL  # noqa: PLC0415 - with aiohttp, loaded only when needed

    try:
        url = URL(value)
    except ValueError:
        url = URL()  # its words may repeat a password
    if url.scheme not in {"http", "https"} or not url.host:
        msg = "must be an http:// or https:// URL with a host"
        raise ValueError(msg)
    return url


class DeliveryConfig(BaseModel):
    """Options of the delivery engine; durations are float seconds or ``timedelta``.

    Raises:
        ConfigurationError: a value is wrong; field, value and remedy are named.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    flush_queue_size: Annotated[int, Field(ge=1, le=2000)] = 200
    """So many waiting events are sent at once: 1 to 2000."""
    flush_interval: Seconds = 10.0
    """Longest wait for company, in seconds; the first batch waits 0.1 s at most."""
    max_batch_size: Annotated[int, Field(ge=1, le=2000)] = 1000
    """Most events in one request, to which batches grow with the backlog: 1 to 2000."""
    max_in_flight: Annotated[int, Field(ge=1, le=256)] = 4
    """Concurrent requests: 1 to 256."""
    flush_max_retries: Annotated[int, Field(ge=0)] = 12
    """Failures charged to an event after the first; if you set it: failed requests."""
    retry_base_interval: PositiveSeconds = 0.1
    """First pause after trouble, in seconds; it doubles, with jitter."""
    retry_max_interval: PositiveSeconds = 60.0
    """Longest pause after trouble, in seconds."""
    retry_throttled_interval: PositiveSeconds = 30.0
    """Seconds that a throttled identity, or all after a bare 429, is held."""
    max_event_age: _Age = 86400.0
    """Seconds until a waiting event is DROPPED expired; 6 days with SQLiteStorage."""
    server_url: str | None = None
    """Where to send instead: an http(s) URL without user and password, query kept."""
    storage: Any = None
    """A Storage or a callable that makes one; None keeps events in memory."""
    opt_out: bool = False
    """True accepts nothing: each event is DROPPED opt_out."""
    connection_timeout: PositiveSeconds = 10.0
    """Seconds for one whole request."""
    max_storage_capacity: Annotated[int, Field(ge=1)] = 20_000
    """Most undecided events in memory, counted wherever they wait."""
    max_storage_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    """Most encoded bytes of undecided events in memory."""
    overflow: Overflow = Overflow.WAIT
    """What to do when memory is full: wait, drop_newest, drop_oldest or raise."""
    overflow_timeout: Seconds = 1.0
    """Longest wait for room in seconds, with Overflow.WAIT."""
    callback: Callable[[Any], Any] | None = None
    """Called once with the final DeliveryResult of every event; plain or async."""
    compression: Literal["gzip"] | None = "gzip"
    """gzip above 2 KiB for official URLs; for a custom URL only when set here."""
    flush_timeout: Seconds | None = 10.0
    """Default deadline of flush() in seconds; None: no limit."""
    shutdown_timeout: Seconds | None = 5.0
    """Default deadline of shutdown() in seconds; None: no limit."""
    max_events_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = (
        None
    )
    """Client-side limit with a burst of one second; None: no limit."""
    handover: Any = None
    """A fleet's Log that takes the events, for relays to deliver; needs no key."""
    confirm: bool = True
    """With ``handover``: a verb returns once the log has its event."""
    confirm_timeout: PositiveSeconds = 1.0
    """Longest wait of a verb for that, in seconds; the event waits on where it was."""
    strict: bool = False
    """True raises for bad values instead of rejecting the event."""
    logger: logging.Logger = logging.getLogger("amplitude_async")
    """Where the client logs; no handler is ever installed."""
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    """Extra request headers: a mapping of text to text."""
    trust_env: bool = True
    """Take proxies from the environment (HTTPS_PROXY and so on)."""

    def __init__(self, **options: Any) -> None:
        """Validate the options.

        Raises:
            ConfigurationError: a value is wrong or an option is unknown.
        """
        options = sealed(type(self), options)
        try:
            super().__init__(**options)
            return
        except ValidationError as error:
            # A key may stand in the place of another option, too.
            redact = Redactor(_keys_among(options))
            problem = redact(describe_errors(type(self), error))
        # Not inside: the error it came from holds what was given.
        raise ConfigurationError(problem)

    def __setattr__(self, name: str, value: object) -> None:
        del value
        msg = f"{name}: the configuration is frozen, give it to a new one"
        raise ConfigurationError(msg)

    @classmethod
    def model_validate(cls, obj: Any, **_: Any) -> Self:
        """Make a configuration from a mapping.

        Raises:
            ConfigurationError: a value is wrong or an option is unknown.
        """
        if isinstance(obj, cls):
            return obj
        if not isinstance(obj, Mapping):
            msg = f"options are a {type(obj).__name__}: give a mapping"
            raise ConfigurationError(msg)
        obj = sealed(cls, obj)
        return cls(**obj)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **_: Any) -> Self:
        """Make a configuration from JSON.

        Raises:
            ConfigurationError: it is none, a value is wrong or an option unknown.
        """
        json_data = seal(
            bytes(json_data) if isinstance(json_data, bytearray) else json_data
        )
        try:
            given = json.loads(json_data)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            msg = "options are no JSON object: give one"
            raise ConfigurationError(msg)
        given = sealed(cls, given)
        return cls(**given)

    def model_copy(
        self, *, update: Mapping[str, Any] | None = None, deep: bool = False
    ) -> Self:
        """Make a copy, with other values for some options.

        Raises:
            ConfigurationError: a value is wrong or an option is unknown.
        """
        if not update:
            return super().model_copy(deep=deep)
        update = sealed(type(self), update)
        return merge_config(type(self), self, update)

    @field_validator("server_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parse_http_url(value)
        # Its query may hold a token.
        return masked_url(value)

    @model_validator(mode="after")
    def _url_has_no_password(self) -> Self:
        # Not where fields are validated: their errors repeat the value.
        url = self.server_url
        if url is not None and parse_http_url(url).authority.rpartition("@")[1]:
            msg = (
                "server_url holds a user or password: leave them out, and pass "
                "headers={'Authorization': ...} where the server wants them"
            )
            raise ValueError(msg)
        return self

    @field_validator("headers", mode="before")
    @classmethod
    def _told_headers(cls, value: object) -> object:
        # As model_dump gives them, so that a dump can be read back.
        if not isinstance(value, Mapping):
            return value
        return {
            name: text.get_secret_value() if isinstance(text, SecretStr) else text
            for name, text in value.items()
        }

    @field_validator("headers")
    @classmethod
    def _masked_headers(cls, value: dict[str, str]) -> dict[str, str]:
        return seal(value)

    @field_serializer("headers")
    def _dumped_headers(self, value: dict[str, str]) -> dict[str, SecretStr]:
        return {name: SecretStr(str(text)) for name, text in value.items()}

    @field_serializer("server_url", when_used="json-unless-none")
    def _dumped_url(self, value: str) -> str:
        return getattr(value, "shown", value)

    @field_validator("callback")
    @classmethod
    def _takes_a_result(
        cls, value: Callable[[Any], Any] | None
    ) -> Callable[[Any], Any] | None:
        if value is None:
            return value
        try:
            signature = inspect.signature(value)
        except (TypeError, ValueError):
            return value  # some builtins do not say what they take
        try:
            signature.bind(None)
        except TypeError:
            msg = (
                "is called with one argument, a DeliveryResult: write "
                "callback(result) and read result.event, result.code and result.message"
            )
            raise ValueError(msg) from None
        return value

    @field_validator("headers")
    @classmethod
    def _one_line_each(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _HEADER_NAME.fullmatch(name):
                msg = "a name is no header name: use letters, digits and hyphens"
                raise ValueError(msg)
            if _LINE_ENDS.search(text):
                msg = f"the value of {shown(name)} holds a line end: take it out"
                raise ValueError(msg)
        return value

    @field_validator("handover")
    @classmethod
    def _log_of_a_fleet(cls, value: object) -> object:
        if value is None or hasattr(type(value), "handover_to"):
            return value
        msg = "must be a Log, such as PostgresLog('postgresql://host/db')"
        raise ValueError(msg)

    @field_validator("storage")
    @classmethod
    def _storage_or_factory(cls, value: object) -> object:
        if value is None or callable(value) or hasattr(value, "append"):
            return value
        msg = "must be a Storage, such as SQLiteStorage('spool/'), or a callable"
        raise ValueError(msg)

    @property
    def redactor(self) -> Redactor:
        """What takes the secrets of these options out of a text."""
        secrets = [*secrets_of_headers(self.headers)]
        for url in (self.server_url, getattr(self, "base_url", None)):
            secrets += secrets_of_url(url or "")
        for name in ("api_key", "api_secret", "authorization"):
            value = getattr(self, name, None)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            secrets += [text or "", (text or "").partition(" ")[2]]
        # A shorter one is a placeholder such as "key": without it words are garbled.
        return Redactor(secret for secret in secrets if len(secret) >= SHORTEST)

    @property
    def handing_over(self) -> Self:
        """These options as they fit a log in the place of a server, or as they are.

        A log is near and takes what there is at once, so that nothing waits for
        company; an option that was set stays as it is.
        """
        if self.handover is None:
            return self
        # Each may be waited for before the log: room, and a storage, and a callback.
        waits = 3 if self.storage is not None and self.callback is not None else 2
        wanted: dict[str, Any] = {
            "flush_queue_size": 1,
            "max_in_flight": 1,
            "retry_max_interval": max(1.0, self.retry_base_interval),
            "overflow_timeout": min(
                self.overflow_timeout, self.confirm_timeout / waits
            ),
        }
        given = self.model_fields_set
        missing = {name: v for name, v in wanted.items() if name not in given}
        return self.model_copy(update=missing) if missing else self

    def most_bytes(self, of_server: int) -> int:
        """Say how large an event may be: what the server takes, and the log."""
        if self.handover is None:
            return of_server
        return min(of_server, int(self.handover.max_event_bytes))

    def backoff_ceiling(self, failures: int) -> float:
        """Upper bound of the wait before retry number ``failures`` (1, 2, ...).

        With the defaults: 0.1, 0.2, 0.4, ... 60 seconds.
        """
        exponent = min(max(failures - 1, 0), 64)
        wait = self.retry_base_interval * math.pow(2, exponent)
        return min(wait, self.retry_max_interval)


ConfigT = TypeVar("ConfigT", bound=DeliveryConfig)

# What no environment variable can hold.
_NOT_IN_ENVIRONMENT = frozenset({"storage", "callback", "handover", "logger"})


def merge_config(
    model: type[ConfigT], base: ConfigT | None, options: Mapping[str, Any]
) -> ConfigT:
    """Build a configuration from one that may exist and options that override it.

    Raises:
        ConfigurationError: an option is wrong.
        TypeError: the base is not a configuration of this kind.
    """
    options = sealed(model, options)
    if base is None:
        return model(**options)
    if not isinstance(base, model):
        # Not the value: it may be the key, given in the wrong place.
        msg = f"config is a {type(base).__name__}: it must be a {model.__name__}"
        raise TypeError(msg)
    given = {name: getattr(base, name) for name in base.model_fields_set}
    return model(**{**given, **options})


def read_environment(model: type[DeliveryConfig], prefix: str) -> dict[str, Any]:
    """Read the options that environment variables give, unvalidated.

    A variable that is empty counts as absent, and ``none`` is None where an option
    takes it.

    Raises:
        ConfigurationError: a variable that holds an object is not JSON.
    """
    from pydantic import create_model  # noqa: PLC0415 - only from_env needs these
    from pydantic_settings import (  # noqa: PLC0415
        BaseSettings,
        EnvSettingsSource,
        SettingsError,
    )

    fields: dict[str, Any] = {
        name: (info.annotation, None)
        for name, info in model.model_fields.items()
        if name not in _NOT_IN_ENVIRONMENT
    }
    settings = create_model("Environment", __base__=BaseSettings, **fields)
    try:
        source = EnvSettingsSource(settings, env_prefix=prefix, env_ignore_empty=True)
        found = sealed(model, source())
    except SettingsError as error:
        msg = f"{error}; it must hold JSON (prefix {prefix})"
    else:
        return {
            name: None if _means_none(model, name, value) else value
            for name, value in found.items()
            if not isinstance(value, str) or value.strip()
        }
    # Not inside: the error behind it holds what the variable holds.
    raise ConfigurationError(msg)


def _means_none(model: type[DeliveryConfig], name: str, value: object) -> bool:
    """Tell whether the text of a variable stands for None, where that is a value."""
    if not isinstance(value, str) or value.strip().lower() not in {"none", "null"}:
        return False
    return type(None) in get_args(model.model_fields[name].annotation)


class DeliveryFields(TypedDict, total=False):
    """Keyword options of both clients; the meanings stand at ``DeliveryConfig``."""

    flush_queue_size: int
    flush_interval: float | timedelta
    max_batch_size: int
    max_in_flight: int
    flush_max_retries: int
    retry_base_interval: float | timedelta
    retry_max_interval: float | timedelta
    retry_throttled_interval: float | timedelta
    max_event_age: float | timedelta
    server_url: str | None
    storage: Any
    opt_out: bool
    connection_timeout: float | timedelta
    max_storage_capacity: int
    max_storage_bytes: int
    overflow: Overflow | Literal["wait", "drop_newest", "drop_oldest", "raise"]
    overflow_timeout: float | timedelta
    callback: Callable[[Any], Any] | None
    compression: Literal["gzip"] | None
    flush_timeout: float | timedelta | None
    shutdown_timeout: float | timedelta | None
    max_events_per_second: float | None
    handover: Any
    confirm: bool
    confirm_timeout: float | timedelta
    strict: bool
    logger: logging.Logger
    headers: dict[str, str]
    trust_env: bool
