"""Verbs are interrupted in each of their steps: by a handler, or for good."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

from amplitude_async import bind, bindings, bound
from amplitude_async.emulator import Emulator
from amplitude_async.storage import SQLiteStorage
from amplitude_async.sync import SyncAmplitude, SyncDelivery

__all__: list[str] = []

Connect = Callable[..., SyncAmplitude]
Verb = Callable[[SyncAmplitude], object]

# Where another thread's steps meet a verb's: the sync package and what it waits with.
FILES = (
    "amplitude_async/binding.py",
    "amplitude_async/sync/",
    "/threading.py",
    "/concurrent/futures/_base.py",
)

VERBS: dict[str, Verb] = {
    "track": lambda client: client.track("e", user_id="user-1"),
    "result": lambda client: client.track("e", user_id="user-1").result(10),
    "flush": lambda client: client.flush(10),
    "stats": lambda client: client.stats,
    "purge": lambda client: client.purge("nobody"),
}


class _InStep:
    """Does something in the n-th step of what it is around, as a signal may."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self._left = number
        self._act = act
        self._before = sys.gettrace()
        self.acted = False

    def __enter__(self) -> Self:
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)  # whoever counts lines goes on

    def _call(self, frame: FrameType, *_: object) -> Any:
        name = frame.f_code.co_filename.replace("\\", "/")
        is_ours = any(part in name for part in FILES) and not self.acted
        return self._line if is_ours else None

    def _line(self, _: FrameType, event: str, arg: object) -> Any:
        if event == "line" and not self.acted:
            self._left -= 1
            if self._left < 0:
                self.acted = True
                self._act()
        del arg
        return self._line


class _Interrupted(Exception):  # noqa: N818 - as a soft time limit
    """What a signal's handler may raise."""


@pytest.fixture(params=["plain", "durable"])
def client(connect: Connect, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a client whose events are sent at once by themselves."""
    options: dict[str, Any] = {"flush_interval": 0.01}
    if request.param == "durable":
        options["storage"] = SQLiteStorage(tmp_path)
    client = connect(**options)
    client.track("first", user_id="user-1").result(10)
    return client


@pytest.mark.parametrize("outer", VERBS)
def test_a_handler_waits_in_each_step_of_a_verb(
    outer: str, client: SyncAmplitude
) -> None:
    """A handler of a signal calls verbs that wait: none waits for ever."""
    found: list[bool] = []

    def handle() -> None:
        client.track("handler", user_id="user-2")
        found.append(client.flush(10).balanced)

    number, acted = 0, True
    while acted:
        with _InStep(number, handle) as step:
            VERBS[outer](client)
        acted, number = step.acted, number + 1

    assert number > 5
    assert found == [True] * (number - 1)


# Of a verb that was interrupted before the loop had it: true, and harmless.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_is_interrupted_in_each_of_its_steps(
    verb: str, client: SyncAmplitude, server: Emulator
) -> None:
    """Later events are sent by themselves all the same, and the account adds up."""

    def interrupt() -> None:
        raise _Interrupted

    number, acted = 0, True
    while acted:
        with _InStep(number, interrupt) as step:
            try:
                VERBS[verb](client)
            except _Interrupted:
                pass
            else:
                assert not step.acted
        acted, number = step.acted, number + 1
        told = client.track("after", user_id="user-3")
        _wait_for(told)
        assert told.result().ok

    stats = client.flush(10)
    assert (stats.balanced, stats.pending) == (True, 0)
    assert stats.delivered == stats.accepted == len(server.events)
    assert server.stats.duplicates == 0


def test_a_handler_binds_in_each_step_of_binding() -> None:
    """In the scope of a request or job, too: nobody waits for a lock of their own."""
    number, acted = 0, True
    while acted:
        with bound(user_id="user-1"):
            with _InStep(number, lambda: bind(language="en")) as step:
                bind(country="UK")
                bindings()
            found = bindings()
        acted, number = step.acted, number + 1
        assert found["user_id"] == "user-1"
        assert "country" in found

    assert number > 5


def _wait_for(handle: SyncDelivery) -> None:
    deadline = time.monotonic() + 10
    while not handle.done:
        assert time.monotonic() < deadline
        time.sleep(0.001)
