"""Every check of this project: `nox` runs them all, `nox --list` names them."""

import platform
import sys
from pathlib import Path

import nox

__all__: list[str] = []

nox.needs_version = ">=2025.5.1"
# uv environments have no pip, and building the wheel needs one.
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
RUNNING = ".".join(platform.python_version_tuple()[:2])
CLAIMED = nox.project.python_versions(PROJECT)
PYTHONS = [*CLAIMED, *({RUNNING} - set(CLAIMED))]

# One interpreter is enough for a change; `nox -s tests-3.13` runs another.
nox.options.sessions = [
    "lint",
    "types",
    "contracts",
    f"tests-{RUNNING}",
    "minimal",
    "lowest",
    "docs",
]

# Without the safe path, `python -m` and `python -c` would import the source tree.
INSTALLED = {"PYTHONSAFEPATH": "1", "AMPLITUDE_ASYNC_EXPECT_WHEEL": "1"}

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
    session.install("-e", ".[all]", *_group("dev"))
    session.run("mypy")
    session.run("pyright", "--pythonpath", _python(session))


@nox.session
def contracts(session: nox.Session) -> None:
    """Check who imports whom."""
    session.install("-e", ".[all]", *_group("contracts"))
    session.run("lint-imports")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the suite on the built wheel, with every extra, and measure coverage."""
    session.install(f"{_wheel(session)}[all]", *_group("tests"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=INSTALLED)
    session.run("coverage", "combine", "--quiet")
    if not session.posargs:
        session.run("coverage", "report")


@nox.session
def minimal(session: nox.Session) -> None:
    """Run the suite on the bare wheel: without its extras it must work as well."""
    session.install(_wheel(session), *_group("tests"))
    session.run("pytest", "-m", "not cli", *session.posargs, env=INSTALLED)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the suite with the oldest dependencies that the metadata allows."""
    if RUNNING not in CLAIMED:
        session.skip(f"the oldest releases have no wheels for Python {RUNNING}")
    oldest = [
        requirement.replace(">=", "==")
        for requirement in PROJECT["project"]["dependencies"]
    ]
    session.install(f"{_wheel(session)}[all]", *oldest, *_group("tests"))
    session.run("pytest", *session.posargs, env=INSTALLED)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, and run every example in them."""
    session.install(f"{_wheel(session)}[all]", *_group("docs"), *_group("tests"))
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
    """Measure every SDK on this machine; `nox -s bench -- --quick` in two minutes."""
    session.run(sys.executable, "benchmarks/run.py", *session.posargs)


@nox.session(venv_backend="none")
def profile(session: nox.Session) -> None:
    """Draw a flame graph of 200,000 events into benchmarks/out."""
    session.run(sys.executable, "benchmarks/flame.py", *session.posargs)


def _group(name: str) -> tuple[str, ...]:
    """Return the requirements of one dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


def _python(session: nox.Session) -> str:
    """Return the path of the session's interpreter."""
    name = "python.exe" if platform.system() == "Windows" else "python"
    return str(Path(session.bin) / name)


def _wheel(session: nox.Session) -> str:
    """Build the wheel and return its path."""
    folder = Path(session.create_tmp()) / "wheel"
    for stale in folder.glob("*.whl"):
        stale.unlink()
    session.run(
        "python", "-m", "pip", "wheel", ".", "--no-deps", "--wheel-dir", str(folder)
    )
    return str(next(folder.glob("*.whl")))
