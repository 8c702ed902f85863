"""Configuration: defaults, addresses, what is refused and how, and kept secrets."""

import logging
import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from amplitude_async import (
    Amplitude,
    Config,
    ConfigurationError,
    IngestionMetadata,
    Overflow,
    Plan,
    ServerZone,
)
from amplitude_async.amplitude.config import ConfigFields
from amplitude_async.storage import MemoryStorage

__all__: list[str] = []

KEY = "0123456789abcdef-secret"


def test_typed_options_match_the_model() -> None:
    """What type checkers accept as an option is what the model accepts."""
    assert set(ConfigFields.__annotations__) == set(Config.model_fields) - {"api_key"}


def test_defaults() -> None:
    """Without options the agreed values hold."""
    config = Config(api_key=KEY)
    assert (config.flush_queue_size, config.flush_interval) == (200, 10.0)
    assert (config.max_batch_size, config.max_in_flight) == (1000, 4)
    assert (config.flush_max_retries, config.retry_throttled_interval) == (12, 30.0)
    assert (config.max_storage_capacity, config.overflow) == (20_000, Overflow.WAIT)
    assert (config.flush_timeout, config.shutdown_timeout) == (10.0, 5.0)
    assert (config.server_zone, config.min_id_length) == (ServerZone.US, None)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "https://api2.amplitude.com/2/httpapi"),
        ({"use_batch": True}, "https://api2.amplitude.com/batch"),
        ({"server_zone": "EU"}, "https://api.eu.amplitude.com/2/httpapi"),
        (
            {"server_zone": ServerZone.EU, "use_batch": True},
            "https://api.eu.amplitude.com/batch",
        ),
        ({"server_zone": " eu "}, "https://api.eu.amplitude.com/2/httpapi"),
        ({"server_zone": "us"}, "https://api2.amplitude.com/2/httpapi"),
    ],
)
def test_url_by_zone_and_api(options: dict[str, Any], url: str) -> None:
    """Zone, in any case, and use_batch choose among the four official addresses."""
    config = Config(api_key=KEY, **options)
    assert config.url == url
    assert config.compresses


@pytest.mark.parametrize("zone", ["US", "EU"])
@pytest.mark.parametrize("use_batch", [False, True])
def test_a_custom_url_wins(zone: str, use_batch: bool) -> None:
    """It is taken as it is, query included, whatever zone and use_batch say."""
    url = "http://proxy.example:8080/in?team=a%2Fb"
    config = Config(api_key=KEY, server_url=url, server_zone=zone, use_batch=use_batch)
    assert config.url == url


def test_compression_is_for_official_urls_unless_asked_for() -> None:
    """A proxy may not understand gzip: only an explicit option sends it there."""
    url = "https://proxy.example/in"
    assert not Config(api_key=KEY, server_url=url).compresses
    assert Config(api_key=KEY, server_url=url, compression="gzip").compresses
    assert not Config(api_key=KEY, compression=None).compresses
    assert Config(
        api_key=KEY, server_url="https://api.eu.amplitude.com/batch"
    ).compresses


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"api_key": None}, "api_key is missing: pass the project's API key"),
    ({"api_key": ""}, "api_key is empty: pass the project's API key"),
    ({"api_key": "  ", "opt_out": True}, "api_key is empty"),
    ({"server_zone": "APAC"}, "server_zone='APAC'.*'US' or 'EU'"),
    ({"server_zone": None}, "server_zone=None"),
    ({"server_url": ""}, "server_url=''.*http"),
    ({"server_url": "api2.amplitude.com"}, "server_url='api2.*http:// or https://"),
    ({"server_url": "ftp://a/b"}, "server_url='ftp://a/b'.*http:// or https://"),
    ({"server_url": "https:///path"}, "server_url='https:///path'.*with a host"),
    ({"flush_interval": -1}, "flush_interval=-1: .*greater than or equal to 0"),
    ({"flush_interval": "soon"}, "flush_interval='soon': .*number"),
    ({"flush_interval": float("inf")}, "flush_interval=inf: .*finite"),
    ({"flush_timeout": -0.1}, "flush_timeout=-0.1: "),
    ({"shutdown_timeout": timedelta(seconds=-1)}, "shutdown_timeout="),
    ({"connection_timeout": 0}, "connection_timeout=0: .*greater than 0"),
    ({"retry_base_interval": 0}, "retry_base_interval=0: .*greater than 0"),
    ({"retry_throttled_interval": timedelta(0)}, "retry_throttled_interval="),
    ({"max_event_age": -5}, "max_event_age=-5: "),
    ({"flush_queue_size": 0}, "flush_queue_size=0: .*greater than or equal to 1"),
    ({"flush_queue_size": 2001}, "flush_queue_size=2001: .*less than or equal to 2000"),
    ({"max_batch_size": 0}, "max_batch_size=0: "),
    ({"max_in_flight": 0}, "max_in_flight=0: "),
    ({"flush_max_retries": -1}, "flush_max_retries=-1: "),
    ({"max_storage_capacity": 0}, "max_storage_capacity=0: "),
    ({"max_storage_bytes": 0}, "max_storage_bytes=0: "),
    ({"min_id_length": 0}, "min_id_length=0: .*greater than or equal to 1"),
    ({"min_id_length": -4}, "min_id_length=-4: "),
    ({"min_id_length": 5.4}, "min_id_length=5.4: .*integer"),
    ({"min_id_length": "five"}, "min_id_length='five': .*integer"),
    ({"truncate_strings": 0}, "truncate_strings=0: "),
    ({"max_events_per_second": 0}, "max_events_per_second=0: "),
    ({"overflow": "panic"}, "overflow='panic': .*'drop_newest'"),
    ({"compression": "br"}, "compression='br': .*'gzip'"),
    ({"callback": 5}, "callback=5: .*callable"),
    ({"storage": "spool/"}, "storage='spool/': must be a Storage"),
    ({"storage": lambda: None}, "made a NoneType: it must be a Storage"),
    ({"logger": "amplitude"}, "logger='amplitude'"),
    ({"plan": {"brunch": "main"}}, "plan.brunch"),
    ({"flush_queuesize": 5}, "no option 'flush_queuesize'; .*'flush_queue_size'"),
    ({"nonsense": 5}, "no option 'nonsense'$"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Each is refused at construction; option, value and remedy are named."""
    given = {"api_key": KEY, **options}
    with pytest.raises(ConfigurationError, match=message) as caught:
        Amplitude(**given)
    assert isinstance(caught.value, ValueError)


def test_several_bad_options_are_named_together() -> None:
    """Nobody has to mend them one by one."""
    options: dict[str, Any] = {"max_in_flight": 0, "flush_interval": -1}
    with pytest.raises(ConfigurationError, match=r"flush_interval=-1.*max_in_flight=0"):
        Config(api_key=KEY, **options)


def test_durations() -> None:
    """Seconds as int or float, or a timedelta; None lifts a deadline; 0 is kept."""
    config = Config(
        api_key=KEY,
        flush_interval=0,
        connection_timeout=timedelta(milliseconds=1500),
        retry_max_interval=5,
        flush_timeout=None,
    )
    assert (config.flush_interval, config.connection_timeout) == (0.0, 1.5)
    assert (config.retry_max_interval, config.flush_timeout) == (5.0, None)


def test_a_configuration_is_frozen() -> None:
    """Neither the model nor the client's property can be changed afterwards."""
    client = Amplitude(KEY, flush_interval=5)
    with pytest.raises(ConfigurationError, match=r"flush_interval: .*frozen") as caught:
        client.config.flush_interval = 1.0  # type: ignore[misc]
    assert caught.value.__context__ is None
    with pytest.raises(AttributeError):
        client.config = Config(api_key=KEY)  # type: ignore[misc]
    assert client.config.flush_interval == 5.0


def test_options_override_a_configuration() -> None:
    """One object may hold what clients share; neither client changes it."""
    shared = Config(api_key=KEY, flush_interval=5, server_zone="EU")
    first = Amplitude("another", config=shared, flush_interval=1)
    second = Amplitude(config=shared)
    assert first.config.flush_interval == 1.0
    assert first.config.server_zone is second.config.server_zone is ServerZone.EU
    assert second.config == shared
    assert first.config.api_key
    assert first.config.api_key.get_secret_value() == "another"
    with pytest.raises(TypeError, match="config is a str: it must be a Config"):
        Amplitude(config=KEY)  # type: ignore[arg-type]


def test_plan_and_metadata_may_be_dicts() -> None:
    """They become models, with the wire's spelling accepted."""
    config = Config(
        api_key=KEY,
        plan={"branch": "main", "versionId": "a1"},
        ingestion_metadata={"source_name": "ampli"},
    )
    assert config.plan == Plan(branch="main", version_id="a1")
    assert config.ingestion_metadata == IngestionMetadata(source_name="ampli")


def test_each_client_has_a_storage_of_its_own() -> None:
    """Clients that share a configuration share no queue; a factory is called once each.

    There is no storage in a configuration unless one was given.
    """
    made: list[MemoryStorage] = []

    def factory() -> MemoryStorage:
        made.append(MemoryStorage())
        return made[-1]

    config = Config(api_key=KEY, storage=factory)
    Amplitude(config=config)
    Amplitude(config=config)
    assert len({id(one) for one in made}) == 2
    assert Config(api_key=KEY).storage is None


def test_retries_wait_twice_as_long_each_time() -> None:
    """0.1 s doubles up to 60 s, an upper bound for the random wait."""
    config = Config(api_key=KEY)
    ceilings = [config.backoff_ceiling(failures) for failures in range(1, 13)]
    assert ceilings[:4] == [0.1, 0.2, 0.4, 0.8]
    assert ceilings[-2:] == [60.0, 60.0]
    assert config.backoff_ceiling(10_000) == 60.0


# --- The environment ---


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that replaces all AMPLITUDE_* variables."""

    def replace(**variables: str) -> None:
        for name in [name for name in os.environ if name.startswith("AMPLITUDE_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return replace


def test_from_env(environment: Callable[..., None]) -> None:
    """Every option that text can hold has a variable; arguments win over it."""
    environment(
        AMPLITUDE_API_KEY=KEY,
        AMPLITUDE_SERVER_ZONE="eu",
        AMPLITUDE_USE_BATCH="true",
        AMPLITUDE_FLUSH_INTERVAL="2.5",
        AMPLITUDE_FLUSH_QUEUE_SIZE="50",
        AMPLITUDE_OVERFLOW="drop_oldest",
        AMPLITUDE_HEADERS='{"X-Team": "a"}',
        AMPLITUDE_PLAN='{"branch": "main"}',
    )
    config = Amplitude.from_env(flush_queue_size=20).config
    assert config.api_key
    assert config.api_key.get_secret_value() == KEY
    assert config.url == "https://api.eu.amplitude.com/batch"
    assert (config.flush_interval, config.flush_queue_size) == (2.5, 20)
    assert config.overflow is Overflow.DROP_OLDEST
    assert config.headers == {"X-Team": "a"}
    assert config.plan == Plan(branch="main")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "api_key is missing"),
        ({"AMPLITUDE_FLUSH_INTERVAL": "soon"}, "flush_interval='soon'"),
        ({"AMPLITUDE_HEADERS": "not json"}, "must hold JSON"),
    ],
)
def test_bad_variables(
    variables: dict[str, str], message: str, environment: Callable[..., None]
) -> None:
    """A wrong variable is a ConfigurationError like a wrong option."""
    environment(**variables)
    with pytest.raises(ConfigurationError, match=message):
        Amplitude.from_env()


def test_the_constructor_reads_no_environment(
    environment: Callable[..., None],
) -> None:
    """What a client does is in the code that makes it, unless from_env is called."""
    environment(AMPLITUDE_API_KEY=KEY, AMPLITUDE_FLUSH_INTERVAL="2.5")
    assert Amplitude("another").config.flush_interval == 10.0
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        Amplitude()


# --- Secrets ---


def test_the_key_is_in_no_repr() -> None:
    """Client, configuration and fingerprint do not show it; nor extra headers."""
    client = Amplitude(KEY, headers={"Authorization": "Bearer " + KEY})
    for shown in (
        repr(client),
        str(client),
        repr(client.config),
        str(client.config),
        repr(vars(client)),
        client.config.model_dump_json(include={"api_key"}),
        client.config.fingerprint,
    ):
        assert KEY not in shown


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": [KEY]},
        {"api_key": KEY.encode() + b"\xff"},
        {"api_key": KEY, "max_in_flight": 0},
        {"api_key": KEY, "nonsense": KEY},
        {"apikey": KEY},
        {"api_key": KEY, "headers": {"Authorization": [KEY]}},
        {"api_key": KEY, "headers": KEY},
    ],
)
def test_the_key_is_in_no_error(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """An error about an option repeats no key, nor does what it came from."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigurationError) as caught:
        Config(**options)
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in str(error) + repr(error)
        error = error.__cause__
    assert KEY not in caplog.text


def test_different_keys_have_different_fingerprints() -> None:
    """A spool can tell projects apart by a hash that is the same in every process."""
    assert Config(api_key=KEY).fingerprint == Config(api_key=KEY).fingerprint
    assert Config(api_key=KEY).fingerprint != Config(api_key="another").fingerprint
    assert pickle.loads(pickle.dumps(Config(api_key=KEY))).url  # noqa: S301
