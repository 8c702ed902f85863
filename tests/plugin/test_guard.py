"""What a suite tracks stays on the machine, and fails the test that has tracked it."""

import re

import pytest

from tests.plugin.conftest import Run, Suite

__all__: list[str] = []

APP = """
import asyncio
from contextlib import asynccontextmanager
from fastapi import FastAPI
from amplitude_async import Amplitude

tasks = set()

@asynccontextmanager
async def life(app):
    global client
    async with Amplitude("a-key-that-nobody-shows") as client:
        yield

app = FastAPI(lifespan=life)

@app.post("/paid")
async def pay():
    await client.track("Paid", user_id="user-1")

@app.post("/later")
async def later():
    task = asyncio.create_task(mail())
    tasks.add(task)
    await task

async def mail():
    await client.track("Mailed", user_id="user-1")
"""
SCRIPT = """
from amplitude_async.sync import SyncAmplitude
with SyncAmplitude("a-key-that-nobody-shows") as client:
    client.track("Scripted", user_id="user-1")
"""
CHILD = """
import asyncio
from amplitude_async import Amplitude

def work():
    asyncio.run(track())

async def track():
    async with Amplitude("a-key-that-nobody-shows") as client:
        await client.track("Worked", user_id="user-1")
"""
TESTS = """
import asyncio, multiprocessing, os, subprocess, sys, threading, time, unittest
import pytest
from fastapi.testclient import TestClient
import child
from app import app
from amplitude_async import Amplitude
from amplitude_async.delivery.interception import INTERCEPTION
from amplitude_async.mparticle import Batch
from amplitude_async.mparticle.models.events import CustomEvent
from amplitude_async.sync import SyncAmplitude, SyncMParticle

KEY = "a-key-that-nobody-shows"

def batch():
    paid = CustomEvent(event_name="Billed", custom_event_type="other")
    return Batch(environment="development", events=[paid],
                 user_identities={"customer_id": "user-1"})

def test_before():
    assert INTERCEPTION.active

def test_handler():
    with TestClient(app) as http:
        http.post("/paid")

def test_background_task():
    with TestClient(app) as http:
        http.post("/later")

def test_thread():
    def work(number):
        sync.track("Threaded", user_id=f"user-{number}")
    with SyncAmplitude(KEY) as sync:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()

def test_subprocess():
    subprocess.run([sys.executable, "script.py"], check=True)

@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_multiprocessing(how):
    process = multiprocessing.get_context(how).Process(target=child.work)
    process.start()
    process.join()

def test_bare_fork():
    if os.fork() == 0:
        try:
            child.work()
        finally:
            os._exit(0)
    os.wait()

def test_upload():
    began = time.monotonic()
    with SyncMParticle(KEY, KEY) as sync:
        sync.send(batch())
        with pytest.raises(Exception, match="not sent to"):
            sync.upload(batch())
        assert not sync.upload_many([batch()])[0].ok
    assert time.monotonic() - began < 10

def test_executed_code():
    with SyncAmplitude(KEY) as sync:
        exec("sync.track('Executed', user_id='user-1')")

def track():
    with SyncAmplitude(KEY) as sync:
        sync.track("Helped", user_id="user-1")

@pytest.fixture
def before():
    track()

@pytest.fixture
def after():
    yield
    track()

def test_setup(before): pass
def test_teardown(after): pass

@pytest.mark.xfail
def test_expected_to_fail():
    track()
    assert False

def test_skips_the_rest():
    track()
    pytest.skip("enough")

def test_fails_anyway():
    track()
    assert 1 == 2, "its own fault"

class TestClass(unittest.TestCase):
    def test_unittest(self):
        track()

    def test_unittest_fails_anyway(self):
        track()
        self.fail("its own fault")

    def test_unittest_quiet(self): pass

class TestAsync(unittest.IsolatedAsyncioTestCase):
    async def test_isolated(self):
        async with Amplitude(KEY) as here:
            await here.track("Isolated", user_id="user-1")

def test_result_says_why():
    with SyncAmplitude(KEY) as sync:
        result = sync.track("Asked", user_id="user-1").result(5)
    assert result.status == "rejected"
    assert "amplitude_events" in result.message
    assert sync.stats.requests == 0

@pytest.mark.parametrize("name", ["ü" * 300, "x" * 10_000, "a [b] (c)", "\\u2028"])
def test_odd_names(name):
    track()

@pytest.mark.amplitude(live=True)
def test_live():
    assert "AMPLITUDE_ASYNC_GUARD" not in os.environ
    assert not INTERCEPTION.active

@pytest.mark.amplitude(live=True)
def test_live_fails():
    assert False

def test_after():
    assert INTERCEPTION.active
    assert "AMPLITUDE_ASYNC_GUARD" in os.environ

@pytest.mark.amplitude(live=True)
class TestLive:
    @pytest.mark.amplitude(live=False)
    def test_not_live(self):
        track()

    def test_live_by_class(self):
        assert not INTERCEPTION.active

def test_events(amplitude_events):
    with TestClient(app) as http:
        http.post("/paid")
    amplitude_events.assert_tracked("Paid", user_id="user-1", times=1)

def test_emulated(amplitude_emulator):
    with SyncAmplitude.from_env() as sync:
        sync.track("Sent", user_id="user-1")
        sync.flush()
    assert amplitude_emulator.events[0]["event_type"] == "Sent"
"""
FILES = {"app.py": APP, "script.py": SCRIPT, "child.py": CHILD, "test_all.py": TESTS}
CAUGHT_LINE = re.compile(
    r"^ *(\S+):(\d+)  (?:(.*?)  )?would go to (\S+)  \[(.+)\]$", re.MULTILINE
)
KEY_SHOWN = "a-key-that-nobody-shows"

CAUGHT = {
    "test_handler": ("app.py", "Paid"),
    "test_background_task": ("app.py", "Mailed"),
    "test_thread": ("test_all.py", "Threaded"),
    "test_subprocess": ("script.py", "Scripted"),
    "test_multiprocessing[spawn]": ("child.py", "Worked"),
    "test_multiprocessing[fork]": ("child.py", "Worked"),
    "test_bare_fork": ("child.py", "Worked"),
    "test_upload": ("test_all.py", "Billed"),
    "test_executed_code": ("<string>", "Executed"),
    "test_setup": ("test_all.py", "Helped"),
    "test_teardown": ("test_all.py", "Helped"),
    "test_expected_to_fail": ("test_all.py", "Helped"),
    "test_skips_the_rest": ("test_all.py", "Helped"),
    "test_fails_anyway": ("test_all.py", "Helped"),
    "test_unittest": ("test_all.py", "Helped"),
    "test_unittest_fails_anyway": ("test_all.py", "Helped"),
    "test_isolated": ("test_all.py", "Isolated"),
    "test_result_says_why": ("test_all.py", "Asked"),
    "test_not_live": ("test_all.py", "Helped"),
}
QUIET = (
    "test_before",
    "test_unittest_quiet",
    "test_live",
    "test_live_by_class",
    "test_after",
    "test_events",
    "test_emulated",
)
LINES = {
    "app.py": APP.splitlines(),
    "script.py": SCRIPT.splitlines(),
    "child.py": CHILD.splitlines(),
    "test_all.py": TESTS.splitlines(),
}


WAYS = {
    "alone": ("--strict-markers",),
    "workers": ("-n", "2"),
    "importlib": ("--import-mode=importlib", "-o", "pythonpath=."),
}


def section_of(text: str, name: str) -> str:
    """Return what is told of one failure."""
    pattern = rf"^_+ (?:ERROR at \w+ of )?(?:\w+\.)?{re.escape(name)} _+$(.*?)^(?:_|=)"
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    assert found, text
    return found[1]


@pytest.mark.parametrize(
    "way",
    [
        "alone",
        pytest.param("workers", marks=pytest.mark.long),
        pytest.param("importlib", marks=pytest.mark.long),
    ],
)
def test_the_test_that_tracks_fails_and_the_line_is_named(
    way: str, suite: Suite
) -> None:
    """From wherever it tracks: a handler, a task, a thread, another process."""
    everything = suite(*WAYS[way], files=FILES)

    for name, (file, event) in CAUGHT.items():
        check_named(everything, name, file, event)
    check_own_faults(everything)
    check_others(everything)
    # The guard stands before DNS.
    assert everything.names == []
    kept = [line for line in everything.text.splitlines() if "would go to" in line]
    assert kept
    assert not any(KEY_SHOWN in line for line in kept)


def check_named(everything: Run, name: str, file: str, event: str) -> None:
    """See that a test fails, and that the line is the one that has tracked."""
    assert everything.outcomes[name] in {"FAILED", "ERROR"}
    told = section_of(everything.text, name)
    lines = CAUGHT_LINE.findall(told)
    assert lines, told
    for shown, number, source, host, shown_event in lines:
        assert shown == file
        assert host in {"api2.amplitude.com", "s2s.mparticle.com"}
        assert shown_event == event
        if file in LINES:
            assert LINES[file][int(number) - 1].strip() == source
    assert "amplitude_events" in told
    assert "amplitude_emulator" in told
    assert "@pytest.mark.amplitude(live=True)" in told


def check_own_faults(everything: Run) -> None:
    """See that neither fault of a test hides the other."""
    for name in ("test_fails_anyway", "test_unittest_fails_anyway"):
        assert "its own fault" in section_of(everything.text, name)
    assert everything.outcomes["test_live_fails"] == "FAILED"


def check_others(everything: Run) -> None:
    """See that nobody else is blamed, and that nothing is left for the end."""
    assert {name: everything.outcomes.get(name) for name in QUIET} == dict.fromkeys(
        QUIET, "PASSED"
    )
    odd = [name for name in everything.outcomes if name.startswith("test_odd")]
    assert odd
    assert {everything.outcomes[name] for name in odd} == {"FAILED"}
    assert "no running test had tracked it" not in everything.text
    assert everything.code == 1


AT_IMPORT = """
from amplitude_async.sync import SyncAmplitude
SyncAmplitude("a-key-that-nobody-shows").track("Imported", user_id="user-1")
def test_nothing(): pass
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_what_is_tracked_while_no_test_runs_fails_the_run(
    suite: Suite, workers: tuple[str, ...]
) -> None:
    """At an import, here: no test is blamed, and the line is named at the end."""
    run = suite(*workers, files={"test_it.py": AT_IMPORT})
    assert run.outcomes == {"test_nothing": "PASSED"}
    assert run.code == 1
    told = "test_it.py:3  SyncAmplitude('***').track(\"Imported\", user_id="
    assert run.text.count(told) == 1
    assert "no running test had tracked it" in run.text
    assert run.names == []


LATE = """
import os, subprocess, sys, time
SCRIPT = '''
import pathlib, time
from amplitude_async.sync import SyncAmplitude
while not pathlib.Path("go").exists(): time.sleep(0.01)
with SyncAmplitude("a-key-that-nobody-shows") as client:
    client.track("Late", user_id="user-1")
'''
processes = []
def test_starts():
    processes.append(subprocess.Popen([sys.executable, "-c", SCRIPT]))
def test_innocent():
    open("go", "w").close()
    processes[0].wait()
"""


def test_a_process_that_outlives_its_test_fails_the_run(suite: Suite) -> None:
    """The test that runs by then is not to blame; the one that started it is named."""
    run = suite(files={"test_it.py": LATE})
    assert set(run.outcomes.values()) == {"PASSED"}
    assert run.code == 1
    assert "(started by test_it.py::test_starts)" in run.text


CRASH = """
import os, subprocess, sys
from amplitude_async.sync import SyncAmplitude
def test_crashes():
    SyncAmplitude("a-key-that-nobody-shows").track("Crashed", user_id="user-1")
    os._exit(3)
def test_other(): pass
"""


def test_a_worker_that_crashes_leaves_its_notes(suite: Suite) -> None:
    """They are told at the end of the run."""
    run = suite("-n", "1", files={"test_it.py": CRASH})
    assert run.outcomes == {"test_crashes": "FAILED", "test_other": "PASSED"}
    assert "[Crashed]" in run.text
    assert run.names == []


ONE = """
import pytest
from amplitude_async.sync import SyncAmplitude
@pytest.mark.parametrize("url", {urls})
def test_it(url):
    with SyncAmplitude("a-key-that-nobody-shows", shutdown_timeout=0.2,
                       server_url=url) as client:
        client.track("Paid", user_id="user-1")
"""
VENDOR = [None]
HERE = [
    "http://localhost:9/2/httpapi",
    "http://127.0.0.1:9/2/httpapi",
    "http://127.8.8.8:9/2/httpapi",
    "http://[::1]:9/2/httpapi",
    "http://[::ffff:127.0.0.1]:9/2/httpapi",
    "http://Emulator:9/2/httpapi",
]
ELSEWHERE = ["http://localhost.example.com/", "http://192.168.0.1/", "https://other/"]


def test_this_machine_and_what_the_configuration_names_are_free(suite: Suite) -> None:
    """Nobody listens there; the guard says nothing. Any other host is not free."""
    test = ONE.format(urls=HERE + ELSEWHERE)
    ini = "[pytest]\namplitude_guard_allow = emulator one.more\n"
    run = suite(files={"test_it.py": test, "pytest.ini": ini})
    # The names of tests may hold slashes and colons.
    assert len(re.findall(r"^PASSED test_it", run.text, re.MULTILINE)) == len(HERE)
    for url in ELSEWHERE:
        assert f"FAILED test_it.py::test_it[{url}]" in run.text
    assert set(run.names) <= {"Emulator", "emulator"}


@pytest.mark.parametrize(
    "off", [("-p", "no:amplitude_async"), ("-o", "amplitude_guard=false")]
)
def test_it_can_be_switched_off(suite: Suite, off: tuple[str, ...]) -> None:
    """Then the client asks for the vendor's address, which is refused here."""
    files = {"test_it.py": ONE.format(urls=VENDOR)}
    run = suite(*off, files=files, everybody=True)
    assert run.outcomes == {"test_it[None]": "PASSED"}, run.text
    assert set(run.names) == {"api2.amplitude.com"}


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_a_marker_that_means_nothing_is_refused(
    suite: Suite, workers: tuple[str, ...]
) -> None:
    """Before any test runs; what was meant is told."""
    wrong = ("()", "(True)", "(live=1)", "(alive=True)", "(live=True, x=1)")
    files = {
        f"test_{number}.py": (
            f"import pytest\n@pytest.mark.amplitude{given}\ndef test_it(): pass\n"
        )
        for number, given in enumerate(wrong)
    }
    run = suite("--strict-markers", *workers, files=files)
    assert run.code != 0
    for number, given in enumerate(wrong):
        assert (
            f"test_{number}.py::test_it: @pytest.mark.amplitude{given} means nothing: "
            "write @pytest.mark.amplitude(live=True)"
        ) in run.text
    assert "test_it" not in run.outcomes


def test_a_directory_that_is_gone_changes_nothing(suite: Suite) -> None:
    """The process remembers what it could not write down."""
    test = (
        "import os, shutil\n"
        + ONE.format(urls=VENDOR).replace(
            "def test_it(url):",
            'def test_it(url):\n    shutil.rmtree(os.environ["AMPLITUDE_ASYNC_GUARD"])',
        )
        + "def test_other(): pass\n"
    )
    run = suite(files={"test_it.py": test})
    assert run.outcomes == {"test_it[None]": "FAILED", "test_other": "PASSED"}
    assert "[Paid]" in run.text
    assert run.names == []


def test_a_file_that_is_gone_is_named_all_the_same(suite: Suite) -> None:
    """Without its line."""
    test = """
import os
from amplitude_async.sync import SyncAmplitude
def test_it():
    code = compile("c.track('Gone', user_id='user-1')", os.path.abspath("gone.py"),
                   "exec")
    with SyncAmplitude("a-key-that-nobody-shows") as client:
        exec(code, {"c": client})
"""
    run = suite(files={"test_it.py": test})
    assert run.outcomes == {"test_it": "FAILED"}
    assert re.search(
        r"gone\.py:1 +would go to api2\.amplitude\.com  \[Gone\]", run.text
    )


def test_a_guard_of_an_outer_run_stands_again(suite: Suite) -> None:
    """A pytest within a pytest, in the same process."""
    test = """
import os, pytest
from amplitude_async.delivery.interception import INTERCEPTION
def test_it(tmp_path):
    before = os.environ["AMPLITUDE_ASYNC_GUARD"]
    inner = tmp_path / "test_inner.py"
    inner.write_text("import os\\ndef test_it(): assert os.environ["
                     f"'AMPLITUDE_ASYNC_GUARD'] != {before!r}")
    assert pytest.main(["-p", "no:cacheprovider", str(inner)]) == 0
    assert os.environ["AMPLITUDE_ASYNC_GUARD"] == before
    assert before in repr(INTERCEPTION)
"""
    run = suite(files={"test_it.py": test}, everybody=True)
    assert run.outcomes["test_it"] == "PASSED", run.text


def test_a_test_that_clears_the_environment_is_blamed(suite: Suite) -> None:
    """It has taken pytest's name for it out as well; what came before is not its."""
    test = """
import os
from unittest import mock
from amplitude_async.sync import SyncAmplitude
client = SyncAmplitude("a-key-that-nobody-shows")
client.track("Imported", user_id="user-1")
def test_innocent(): pass
def test_it():
    with mock.patch.dict(os.environ, clear=True):
        client.track("Cleared", user_id="user-1")
def test_other(): pass
"""
    run = suite(files={"test_it.py": test})
    assert run.outcomes == {
        "test_innocent": "PASSED",
        "test_it": "FAILED",
        "test_other": "PASSED",
    }
    at_end = run.text.partition("no running test had tracked it")[2]
    # What follows is the list of what failed, which tells of it once more.
    at_end = at_end.partition("None of it was sent")[0]
    assert "[Imported]" in at_end
    assert "[Cleared]" not in at_end
    assert "[Cleared]" in section_of(run.text, "test_it")
    assert run.names == []


@pytest.mark.parametrize(
    "host", ["emulator:8443", "https://emulator/", "*.test", "[::2]", "me@emulator"]
)
def test_an_allowed_host_that_is_none_is_refused(suite: Suite, host: str) -> None:
    """It would allow nothing, in silence."""
    ini = f"[pytest]\namplitude_guard_allow = {host}\n"
    run = suite(files={"pytest.ini": ini, "test_it.py": "def test_it(): pass\n"})
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert f"amplitude_guard_allow holds {host!r}" in run.text


@pytest.mark.parametrize("host", ["::2", "10.0.0.7", "Emulator", "one_more.test"])
def test_an_allowed_host_may_be_an_address(suite: Suite, host: str) -> None:
    """Of either version, or any name."""
    ini = f"[pytest]\namplitude_guard_allow = {host}\n"
    run = suite(files={"pytest.ini": ini, "test_it.py": "def test_it(): pass\n"})
    assert run.outcomes == {"test_it": "PASSED"}, run.text


def test_no_proxy_takes_to_another_machine_what_is_for_this_one(suite: Suite) -> None:
    """The environment names one, and the address is the loopback's."""
    test = """
from amplitude_async.emulator import Emulator
from amplitude_async.sync import SyncAmplitude
def test_it():
    with Emulator() as emulator:
        with SyncAmplitude("a-key-that-nobody-shows", shutdown_timeout=5,
                           server_url=emulator.httpapi_url) as client:
            client.track("Paid", user_id="user-1")
        assert [event["event_type"] for event in emulator.events] == ["Paid"]
"""
    run = suite(
        files={"test_it.py": test},
        HTTP_PROXY="http://proxy.example.test:3128",
        http_proxy="http://proxy.example.test:3128",
        NO_PROXY="",
        no_proxy="",
    )
    assert run.outcomes == {"test_it": "PASSED"}, run.text
    assert run.names == []
