"""Real servers and workers of synchronous code: each event arrives, once."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amplitude_async.emulator import Emulator
from tests.conftest import free_port

__all__ = ["start"]

TIMEOUT = 60.0


@pytest.fixture
def start(
    server: Emulator, tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Yield a function that starts a program; none is left behind."""
    processes = []

    def begin(module: str, *command: str) -> subprocess.Popen[str]:
        (tmp_path / "service.py").write_text(textwrap.dedent(module), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}",
                "AMPLITUDE_API_KEY": "key",
                "AMPLITUDE_SERVER_URL": server.httpapi_url,
                "AMPLITUDE_TRUST_ENV": "false",
                "AMPLITUDE_FLUSH_INTERVAL": "3600",
            },
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=TIMEOUT)


def users(server: Emulator) -> list[str]:
    """Return whose events arrived, sorted."""
    return sorted(event["user_id"] for event in server.events)


def fetch(url: str) -> str:
    """Fetch a page from a server that may not listen as yet."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310
                text: str = answer.read().decode()
                return text
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


SERVICE = """
import os
from amplitude_async.sync import SyncAmplitude

# Made, and used, in the process that forks the workers.
client = SyncAmplitude.from_env()
client.track("Started", user_id="user-master").result(10)

def app(environ, respond):
    user = environ["PATH_INFO"].strip("/")
    client.track("Paid", user_id=user)
    respond("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.long
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "plain"])
@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn(
    worker: str, *, preload: bool, server: Emulator, start: Callable[..., Any]
) -> None:
    """Two workers, preloaded or not: SIGTERM loses nothing, and nothing is doubled."""
    pytest.importorskip("gunicorn")
    port = free_port()
    options = ["--bind", f"127.0.0.1:{port}", "--workers", "2", "-k", worker]
    process = start(
        SERVICE, "gunicorn", *options, *["--preload"] * preload, "service:app"
    )
    asked = [f"user-{number}" for number in range(40)]

    served_by = {fetch(f"http://127.0.0.1:{port}/{user}") for user in asked}
    process.send_signal(signal.SIGTERM)
    log, _ = process.communicate(timeout=TIMEOUT)

    assert process.returncode == 0, log
    assert str(process.pid) not in served_by
    started = ["user-master"] * (1 if preload else 2)
    assert users(server) == sorted([*asked, *started]), log
    assert server.stats.duplicates == 0
    assert "Traceback" not in log


TASKS = """
import os
from celery import Celery
from amplitude_async.sync import SyncAmplitude

app = Celery(
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": "queue", "data_folder_out": "queue",
        "store_processed": False, "control_folder": "control",
    },
    task_ignore_result=True,
)
# Made, and used, in the process that forks the workers.
client = SyncAmplitude.from_env()
client.track("Started", user_id="user-master")
waited = set()

@app.task
def pay(user):
    paid = client.track("Paid", user_id=user)
    if os.getpid() not in waited:
        # A client's first request goes at once: the later ones are left to the end.
        paid.result(10)
        waited.add(os.getpid())
    open(f"done-{user}", "w").close()
"""


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_celery(
    pool: str, server: Emulator, start: Callable[..., Any], tmp_path: Path
) -> None:
    """A worker that SIGTERM ends has delivered the events of all its tasks."""
    pytest.importorskip("celery")
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    asked = [f"user-{number}" for number in range(20)]
    command = "worker", "--pool", pool, "--concurrency", "2", "--loglevel", "WARNING"
    worker = start(TASKS, "celery", "-A", "service", *command, "--without-mingle")
    send = f"from service import pay\nfor user in {asked}: pay.delay(user)"
    (tmp_path / "send.py").write_text(send, encoding="utf-8")
    start(TASKS, "send").wait(TIMEOUT)

    deadline = time.monotonic() + TIMEOUT
    while len(list(tmp_path.glob("done-*"))) < len(asked):
        assert time.monotonic() < deadline, worker.kill() or worker.communicate()[0]
        time.sleep(0.02)
    worker.send_signal(signal.SIGTERM)
    log, _ = worker.communicate(timeout=TIMEOUT)

    # Who sends the tasks imports the module as well.
    assert users(server) == sorted([*asked, *["user-master"] * 2]), log
    assert server.stats.duplicates == 0
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "patched", ["", "thread=False", "thread=False, select=False"], ids=str
)
def test_gevent_is_refused_by_name(patched: str, run: Callable[..., Any]) -> None:
    """Where gevent has replaced threads or sockets, a constructor says so."""
    pytest.importorskip("gevent")
    ended = run(
        f"""
        from gevent import monkey
        monkey.patch_all({patched})
        from amplitude_async.sync import SyncAmplitude
        SyncAmplitude("key")
        """
    )

    assert ended.returncode == 1
    [line] = [x for x in ended.stderr.splitlines() if ".AmplitudeError: " in x]
    assert "gevent has replaced Python's threads or sockets" in line
    assert "gthread" in line


def test_gevent_may_be_imported(run: Callable[..., Any]) -> None:
    """What gevent has not replaced is no hindrance."""
    pytest.importorskip("gevent")
    ended = run(
        """
        import gevent.monkey
        from amplitude_async.sync import SyncAmplitude
        with SyncAmplitude.from_env() as client:
            print(client.track("e", user_id="user-1").result(10).ok)
        """
    )

    assert ended.stdout == "True\n", ended.stderr
