"""Options of the mParticle client: addresses, credentials, limits, the environment."""

from typing import Any

import pytest
from pydantic import SecretStr

from amplitude_async import ConfigurationError
from amplitude_async.mparticle import MParticle, MParticleConfig

__all__: list[str] = []

DEFAULT = "https://s2s.mparticle.com/v2"


def config(api_key: str = "key", **options: Any) -> MParticleConfig:
    """Build a configuration."""
    given = {"api_secret": "secret", **options}
    return MParticleConfig(api_key=api_key, **given)


@pytest.mark.parametrize(
    ("pod", "url"),
    [
        (None, DEFAULT),
        ("us1", "https://s2s.us1.mparticle.com/v2"),
        ("US2", "https://s2s.us2.mparticle.com/v2"),
        (" eu1 ", "https://s2s.eu1.mparticle.com/v2"),
        ("au1", "https://s2s.au1.mparticle.com/v2"),
    ],
)
def test_each_pod_has_its_address(pod: str | None, url: str) -> None:
    """The five addresses of the documentation, in any case of letters."""
    assert config(pod=pod).url == url


@pytest.mark.parametrize(
    ("key", "pod"),
    [
        ("eu1-abc", "eu1"),
        ("US2-abc", "us2"),
        ("au1-a-b", "au1"),
        ("abc", None),
        ("zz9-abc", None),
        ("eu1", None),
    ],
)
def test_the_prefix_of_a_key_names_its_pod(key: str, pod: str | None) -> None:
    """A known prefix chooses the pod; an unknown one is never taken for a host."""
    url = f"https://s2s.{pod}.mparticle.com/v2" if pod else DEFAULT
    assert config(key).url == url


def test_a_pod_wins_over_the_prefix_and_a_url_over_both() -> None:
    """What is said out loud counts more than what is read off the key."""
    assert config("eu1-abc", pod="us2").url == "https://s2s.us2.mparticle.com/v2"
    assert config("eu1-abc", pod="us2", base_url="http://x/v2//").url == "http://x/v2"


def test_an_address_has_no_double_slash() -> None:
    """Slashes at the end of the base are no part of the paths."""
    client = MParticle("key", "secret", base_url="http://127.0.0.1:1/v2///")

    assert "'http://127.0.0.1:1/v2/bulkevents'" in repr(client)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": None}, "api_key is missing"),
        ({"api_key": "  "}, "api_key is missing"),
        ({"api_secret": None}, "api_secret is missing"),
        ({"api_secret": ""}, "api_secret is missing"),
        ({"api_secret": None, "opt_out": True}, "api_secret is missing"),
        ({"api_key": "a:b"}, "api_key holds a colon"),
        ({"pod": "mars"}, "pod='mars'"),
        ({"base_url": "ftp://x"}, "base_url='ftp://x'"),
        ({"base_url": "http://x/v2?a=b"}, "no query"),
        ({"base_url": "http://me:hush@x/v2"}, "pass api_key and api_secret"),
        ({"server_url": "http://x"}, "set base_url instead"),
        ({"limits": "strict"}, "limits='strict'"),
        ({"environment": "test"}, "environment='test'"),
        ({"max_batch_size": 101}, "max_batch_size=101"),
        ({"base_ulr": "http://x"}, "did you mean 'base_url'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Each is refused at construction, by a message that shows no secret."""
    given = {"api_key": "key-k", "api_secret": "secret-s", **options}
    with pytest.raises(ConfigurationError) as raised:
        MParticle(config=MParticleConfig(**given))

    shown = str(raised.value)
    assert message in shown
    for secret in ("key-k", "secret-s", "hush", "a:b"):
        assert secret not in shown


def test_secrets_are_not_shown() -> None:
    """Neither a configuration nor a client shows key, secret or extra headers."""
    made = config("key-k", api_secret="secret-s", headers={"x-token": "hush"})
    shown = repr(made) + str(made) + repr(MParticle(config=made))

    for secret in ("key-k", "secret-s", "hush"):
        assert secret not in shown
    assert made.authorization == config("key-k", api_secret="secret-s").authorization
    assert "key-k" not in made.fingerprint


def test_absent_options_may_be_none() -> None:
    """None is what they are without being named."""
    made = config(pod=None, base_url=None, server_url=None, api_key="eu1-abc")

    assert made.url == "https://s2s.eu1.mparticle.com/v2"


def test_arguments_override_the_configuration() -> None:
    """What is passed by name wins, the rest is the configuration's."""
    base = config("eu1-abc", flush_interval=3)
    client = MParticle("us1-abc", config=base, environment="production")

    assert client.config.flush_interval == 3
    assert client.config.environment == "production"
    assert client.config.url == "https://s2s.us1.mparticle.com/v2"
    assert base.environment is None


def test_a_wrong_kind_of_configuration_is_not_echoed() -> None:
    """A secret in the place of the configuration does not appear in the error."""
    wrong: Any = "secret-s"
    with pytest.raises(TypeError, match="must be a MParticleConfig") as raised:
        MParticle("key", "secret", config=wrong)
    assert "secret-s" not in str(raised.value)


def test_without_credentials_while_opted_out() -> None:
    """Development and CI need no key, and cannot opt in without one."""
    client = MParticle(opt_out=True)

    assert client.opt_out
    with pytest.raises(ConfigurationError, match="needs an api_key"):
        client.opt_out = False


def test_the_environment_is_read_by_from_env_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MPARTICLE_* are read on request, and arguments win over them."""
    for name, value in {
        "API_KEY": "eu1-abc",
        "API_SECRET": "hush",
        "ENVIRONMENT": "production",
        "DATA_PLAN": '{"plan_id": "web", "plan_version": 2}',
        "FLUSH_INTERVAL": "2.5",
        "LIMITS": "truncate",
    }.items():
        monkeypatch.setenv(f"MPARTICLE_{name}", value)

    client = MParticle.from_env(limits="off", pod="us2", api_secret=SecretStr("other"))

    assert client.config.api_key == SecretStr("eu1-abc")
    assert client.config.api_secret == SecretStr("other")
    assert client.config.url == "https://s2s.us2.mparticle.com/v2"
    assert client.config.environment == "production"
    assert client.config.data_plan is not None
    assert client.config.data_plan.plan_version == 2
    assert client.config.flush_interval == 2.5
    assert client.config.limits == "off"
    with pytest.raises(ConfigurationError, match="api_key is missing"):
        MParticle()


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment holds is checked like an argument."""
    monkeypatch.setenv("MPARTICLE_API_KEY", "abc")
    monkeypatch.setenv("MPARTICLE_API_SECRET", "hush")
    monkeypatch.setenv("MPARTICLE_POD", "mars")
    with pytest.raises(ConfigurationError, match="pod='mars'") as raised:
        MParticle.from_env()
    assert "hush" not in str(raised.value)
