"""The pytest plugin of amplitude_async: fixtures, and the guard that keeps events here.

It stands beside the package, because importing any part of that imports all of it: a
suite pays for it, and coverage counts its lines, from the first test that uses it.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import pytest

if TYPE_CHECKING:
    from amplitude_async.emulator import Emulator
    from amplitude_async.testing import CapturedEvents, SharedClock

__all__ = ["amplitude_clock", "amplitude_emulator", "amplitude_events"]

MARKER: Final = "amplitude"
# Known to `amplitude_async.delivery.guard` by these names as well, which a suite that
# never uses the package must not import.
VARIABLE: Final = "AMPLITUDE_ASYNC_GUARD"
ALLOWED: Final = "AMPLITUDE_ASYNC_GUARD_ALLOW"
NOTES: Final = "caught.ndjson"
SWITCH: Final = "amplitude_async.delivery.interception"
# What a worker of pytest-xdist hands to its controller when it ends.
OUTPUT: Final = "amplitude_guard"

TITLE: Final = "amplitude guard"
REMEDIES: Final = """\
None of it was sent. Let the test take the fixture amplitude_events (or capture()) to
see what is tracked, or amplitude_emulator to send it to this machine; a test that has
to reach the network is marked @pytest.mark.amplitude(live=True)."""
OUTSIDE: Final = "Kept from the network, and no running test had tracked it:"

Note = Mapping[str, Any]


# Fixtures --------------------------------------------------------------------


@pytest.fixture
def amplitude_events() -> "Iterator[CapturedEvents]":
    """Take the events of every client of the test, and send none."""
    from amplitude_async.testing import capture  # noqa: PLC0415 - first used here

    with capture() as events:
        yield events


@pytest.fixture
def amplitude_emulator() -> "Iterator[Emulator]":
    """Run an emulator beside the test; every ``from_env()`` sends to it meanwhile."""
    from amplitude_async.emulator import Emulator  # noqa: PLC0415 - first used here

    with Emulator() as emulator, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMPLITUDE_SERVER_URL", emulator.httpapi_url)
        patch.setenv("AMPLITUDE_API_KEY", "key-of-the-amplitude-emulator")
        patch.setenv("MPARTICLE_BASE_URL", emulator.mparticle_url)
        patch.setenv("MPARTICLE_API_KEY", "key-of-the-mparticle-emulator")
        patch.setenv("MPARTICLE_API_SECRET", "secret-of-the-mparticle-emulator")
        # A proxy of this machine has no business on loopback.
        patch.setenv("AMPLITUDE_TRUST_ENV", "false")
        patch.setenv("MPARTICLE_TRUST_ENV", "false")
        yield emulator


@pytest.fixture
def amplitude_clock() -> "Iterator[SharedClock]":
    """Give a clock to every client that the test makes: it moves when the test says."""
    # Here, since a suite may use none of it.
    from amplitude_async.delivery.interception import INTERCEPTION  # noqa: PLC0415
    from amplitude_async.testing import SharedClock  # noqa: PLC0415

    clock = SharedClock()

    def make() -> SharedClock:
        return clock

    INTERCEPTION.begin_time(make)
    try:
        yield clock
    finally:
        INTERCEPTION.end_time(make)


# The guard -------------------------------------------------------------------


class Watch:
    """Guards one pytest process and what it starts, and reads what was caught.

    Args:
        allowed: hosts that events may go to, besides this machine.
        root: paths are shown from here.
    """

    def __init__(self, allowed: Iterable[str], root: Path) -> None:
        self._root = root
        self._before = {name: os.environ.get(name) for name in (VARIABLE, ALLOWED)}
        outer = self._before[VARIABLE]
        # Inside of the controller's for a worker: what one that crashes leaves behind
        # is found there.
        inside = outer if outer and Path(outer).is_dir() else None
        self._directory = tempfile.mkdtemp(prefix="amplitude-guard-", dir=inside)
        self._environment = {VARIABLE: self._directory, ALLOWED: " ".join(allowed)}
        self._pid = os.getpid()
        self._read = 0
        self._stray: list[Note] = []
        self.texts: list[str] = []
        """What belongs to no test, as it is told at the end; filled by ``finish``."""

    def arm(self) -> None:
        """Guard this process and those it starts."""
        os.environ.update(self._environment)
        _arm()

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Guard nobody for a while."""
        for name in self._environment:
            os.environ.pop(name, None)
        _arm()
        try:
            yield
        finally:
            self.arm()

    def take(self, test: str) -> list[str]:
        """Tell what a test has tracked since the last time; the rest is kept."""
        number = crc32(os.fsencode(test))
        mine: list[Note] = []
        for note in self._unread():
            (mine if note.get("of") == number else self._stray).append(note)
        return self._told(mine)

    def finish(self) -> None:
        """Put into words what belongs to no test."""
        self._stray += self._unread()
        # Workers take theirs away when they end: these did not come to it.
        for file in Path(self._directory).glob(f"*/**/{NOTES}"):
            self._stray += _parsed(file.read_bytes())
        for note in self._stray:
            test = note.get("test")
            origin = f"  (started by {test})" if test else ""
            self.texts += [text + origin for text in self._told([note])]
        self._stray = []

    def close(self) -> None:
        """Take the directory away; whatever guarded before does so again.

        Where nobody did, this process stays guarded until it ends: what its last
        functions track is a test suite's still.
        """
        if os.getpid() != self._pid:
            return
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._before[VARIABLE]:
            for name, value in self._before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            _arm()

    def _unread(self) -> list[Note]:
        """Read what this process and its children have noted since the last time."""
        text = b""
        try:
            with Path(self._directory, NOTES).open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except OSError:
            pass  # mostly: nothing was caught
        # The last line of a process that was killed may be half of one.
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        switch = sys.modules.get(SWITCH)
        guard = None if switch is None else switch.INTERCEPTION.guard
        unwritten = [] if guard is None else guard.take()
        return _parsed(whole) + [json.loads(line) for line in unwritten]

    def _told(self, notes: Sequence[Note]) -> list[str]:
        told = []
        for note in notes:
            event, host = note.get("event"), note.get("host")
            line = f"{self._shown(note)}  would go to {host}"
            told.append(f"{line}  [{event}]" if event else line)
        return told

    def _shown(self, note: Note) -> str:
        file, source = str(note.get("file") or ""), str(note.get("source") or "")
        if not file:
            return "a line of nobody's that is still on the stack"
        path = Path(file)
        if path.is_absolute() and path.is_relative_to(self._root):
            file = str(path.relative_to(self._root))
        return f"{file}:{note.get('line')}  {source}".rstrip()

    def __repr__(self) -> str:
        return f"<Watch in {self._directory!r}>"


WATCH: Final = pytest.StashKey[Watch]()


def _arm() -> None:
    """Let the package, where it is imported, do as the environment says."""
    switch = sys.modules.get(SWITCH)
    if switch is not None and hasattr(switch, "INTERCEPTION"):
        switch.INTERCEPTION.arm(switch.guard_of(os.environ))


def _parsed(lines: bytes) -> list[Note]:
    found: list[Note] = []
    for line in lines.splitlines():
        try:
            note = json.loads(line)
        except ValueError:
            note = {"file": "a note that cannot be read", "line": "?"}
        found.append(note if isinstance(note, dict) else {})
    return found


def _in_words(told: Sequence[str]) -> str:
    kept = "This test has tracked what would leave this machine:"
    lines = (f"  {line}" for line in dict.fromkeys(told))
    return "\n".join((kept, *lines, REMEDIES))


# Hooks -----------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say what may be set in the configuration file."""
    parser.addini(
        "amplitude_guard",
        "keep the events of amplitude_async on this machine (default: true)",
        type="bool",
        default=True,
    )
    parser.addini(
        "amplitude_guard_allow",
        "hosts besides this machine that events of amplitude_async may go to",
        type="args",
        default=[],
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Arm the guard before anything of the suite is imported."""
    if not early_config.getini("amplitude_guard"):
        return
    allowed = early_config.getini("amplitude_guard_allow")
    watch = Watch(allowed, early_config.rootpath)
    early_config.add_cleanup(watch.close)
    early_config.stash[WATCH] = watch
    watch.arm()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(live=True): let this test's events of amplitude_async leave this "
        "machine",
    )


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[
    None, pytest.CollectReport, pytest.CollectReport
]:
    """Refuse a marker that would not do what it seems to say.

    As an error of the file, which workers of pytest-xdist can tell as well.
    """
    report = yield
    for item in report.result or ():
        wrong = _wrong_marker(item) if isinstance(item, pytest.Item) else None
        if wrong is not None:
            report.outcome, report.longrepr = "failed", wrong
    return report


def _wrong_marker(item: pytest.Item) -> str | None:
    """Say what is wrong with the marker of a test; None: nothing, or it has none."""
    for marker in item.iter_markers(MARKER):
        live = marker.kwargs.get("live")
        if marker.args or len(marker.kwargs) != 1 or not isinstance(live, bool):
            positional = map(repr, marker.args)
            named = (f"{name}={value!r}" for name, value in marker.kwargs.items())
            given = ", ".join((*positional, *named))
            return (
                f"{item.nodeid}: @pytest.mark.{MARKER}({given}) means nothing: "
                f"write @pytest.mark.{MARKER}(live=True), or live=False"
            )
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Lift the guard for a test that is marked."""
    watch = item.config.stash.get(WATCH, None)
    marker = item.get_closest_marker(MARKER)
    if watch is None or marker is None or not marker.kwargs["live"]:
        return (yield)
    with watch.lifted():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test fail whose events were kept from the network."""
    watch = item.config.stash.get(WATCH, None)
    told = watch.take(item.nodeid.replace("\x00", "(null)")) if watch else []
    if not told:
        return (yield)
    text = _in_words(told)
    if call.excinfo is None:
        try:
            pytest.fail(text, pytrace=False)
        except pytest.fail.Exception:
            call.excinfo = pytest.ExceptionInfo.from_current()
    report = yield
    if report.outcome == "failed":
        if text not in report.longreprtext:
            report.sections.append((TITLE, text))
        return report
    # It expected to fail, or skips the rest: it has tracked before.
    report.outcome, report.longrepr = "failed", text
    if hasattr(report, "wasxfail"):
        del report.wasxfail
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the run fail where something was caught while no test ran."""
    watch = session.config.stash.get(WATCH, None)
    if watch is None:
        return
    watch.finish()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[OUTPUT] = watch.texts
        return
    passed = {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    if watch.texts and session.exitstatus in passed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist has caught while no test ran."""
    watch = node.config.stash.get(WATCH, None)
    if watch is not None:
        watch.texts += getattr(node, "workeroutput", {}).get(OUTPUT, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was caught while no test ran."""
    watch = config.stash.get(WATCH, None)
    if watch is None or not watch.texts:
        return
    terminalreporter.section(TITLE, sep="=", red=True)
    terminalreporter.write_line(OUTSIDE)
    for text in dict.fromkeys(watch.texts):
        terminalreporter.write_line(f"  {text}")
    terminalreporter.write_line(REMEDIES)
