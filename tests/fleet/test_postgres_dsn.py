"""What a PostgresLog is told is checked early, and its password shown to nobody."""

import subprocess
import sys
import traceback
from typing import Any

import pytest

from amplitude_async.exceptions import ConfigurationError
from amplitude_async.fleet.postgres import PostgresLog
from amplitude_async.fleet.postgres.access import read_dsn
from amplitude_async.fleet.postgres.credentials import read_credentials

PASSWORD = "correct-horse-battery"
GOOD = f"postgresql://web:{PASSWORD}@db.internal/shop"


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "db.internal/shop",
        f"mysql://web:{PASSWORD}@db/shop",
        f"postgresql://web:{PASSWORD}@/shop",
        f"postgresql://web:{PASSWORD}@db",
        f"postgresql://web:{PASSWORD}@db/",
        f"postgresql://web:{PASSWORD}@db:99999/shop",
        f"postgresql://web:{PASSWORD}@db:0/shop",
        f"postgresql://web:{PASSWORD}@db:x/shop",
        f"postgresql://web:{PASSWORD}@db:/shop",
        f"postgresql://web:{PASSWORD}@one,,two/shop",
        f"postgresql://web:{PASSWORD}@[::1/shop",
        f"postgresql://web:{PASSWORD}/x@db/shop",
        f"postgresql://web:{PASSWORD}#x@db/shop",
        f"postgresql://web:x@{PASSWORD}@db/shop",
        f"postgresql://web:{PASSWORD}@db/shop?sslmode",
        f"postgresql://web:{PASSWORD}@db/shop?sslmode=maybe",
        f"postgresql://web:{PASSWORD}@db/shop?sslmod=require",
        f"postgresql://web:{PASSWORD}@db/shop?SSLMode=require",
        f"postgresql://web:{PASSWORD}@db/shop?target_session_attrs=standby",
        f"postgresql://web:{PASSWORD}@db/shop\n",
        f"postgresql://web:{PASSWORD} @db/shop",
        None,
        b"postgresql://db/shop",
    ],
)
def test_what_is_no_address_is_refused(dsn: Any) -> None:
    """By name, with a remedy, and without the password."""
    if dsn is not None and dsn == f"postgresql://web:{PASSWORD}@db/shop\n":
        PostgresLog(dsn)  # a line end at the end is a file's
        return
    with pytest.raises(ConfigurationError, match=r"dsn .*postgresql://") as caught:
        PostgresLog(dsn)

    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"project": "Web Shop"}, "project"),
        ({"project": ""}, "project"),
        ({"schema": 'a"; drop'}, "schema"),
        ({"schema": "Public"}, "schema"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": 1.5}, "max_bytes"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], name: str) -> None:
    """By its name."""
    with pytest.raises(ConfigurationError, match=f"{name}="):
        PostgresLog(GOOD, **options)


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://db/shop", (("db", 5432),)),
        ("postgres://db:6432/shop", (("db", 6432),)),
        ("postgresql://one,two:5433/shop", (("one", 5432), ("two", 5433))),
        ("postgresql://[::1]:5433/shop", (("::1", 5433),)),
        ("postgresql:///shop?host=/run/pg", (("/run/pg", 5432),)),
        ("postgresql:///shop?host=one,two&port=1,2", (("one", 1), ("two", 2))),
        ("postgresql://%2Frun%2Fpg/shop", (("/run/pg", 5432),)),
    ],
)
def test_hosts_are_read(dsn: str, hosts: tuple[tuple[str, int], ...]) -> None:
    """One or several, with ports or without, or the folder of a socket."""
    assert read_dsn(dsn).hosts == hosts


def test_one_that_was_refused_can_be_shown() -> None:
    """As a tool does that collects errors, with the variables of each frame."""
    with pytest.raises(ConfigurationError) as caught:
        PostgresLog(GOOD, project="Web Shop")
    told = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    )
    assert "half-built" in "".join(told.format())


def test_it_shows_no_password() -> None:
    """Neither it nor what it consists of; two logs of one database look alike."""
    log = PostgresLog(GOOD, project="web")
    other = PostgresLog(GOOD.replace(PASSWORD, "other"), project="web")

    shown = f"{log!r} {vars(log)!r} {log.fingerprint()}"

    assert PASSWORD not in shown
    assert log.fingerprint() == other.fingerprint()
    assert log.fingerprint() == "postgresql://db.internal:5432/shop/web"


def test_a_password_may_stand_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The one that libpq reads: what is escaped, and what stands for anything."""
    path = tmp_path / "pgpass"
    path.write_text("# a:b:c:d:e\nother:*:*:*:wrong\ndb:5432:*:web:se\\:cret\n")
    monkeypatch.setenv("PGPASSFILE", str(path))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    access = read_dsn("postgresql://web@db/shop")

    found = read_credentials(access, access.hosts[0])

    assert str(found.password) == "se:cret"
    assert found.may_be_plain


def test_encryption_that_is_asked_for_is_insisted_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """And a certificate to check with must be there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    access = read_dsn(f"{GOOD}?sslmode=require")
    assert not read_credentials(access, access.hosts[0]).may_be_plain
    access = read_dsn(f"{GOOD}?sslmode=verify-full")
    with pytest.raises(OSError, match="sslrootcert"):
        read_credentials(access, access.hosts[0])


def test_importing_loads_no_driver() -> None:
    """Who has another log does not pay for this one."""
    code = (
        "import sys, amplitude_async, amplitude_async.fleet.postgres as p;"
        "p.PostgresLog('postgresql://db/shop');"
        "print([m for m in ('asyncpg', 'sqlalchemy', 'psycopg') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


async def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"amplitude-async\[postgres\]"):
        await PostgresLog(GOOD).open()
