"""An environment of its own for each SDK, made from the registry where it is absent.

They lie in ``benchmarks/.venvs`` and are no dependency of the package. Ours are
editable installs, so that a run measures the tree as it stands.
"""

# ruff: noqa: S603 - every command line is made of names in this folder

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["HERE", "command", "ensure", "python_of", "version_of"]

HERE: Final = Path(__file__).resolve().parent
VENVS: Final = HERE / ".venvs"
PROJECT: Final = HERE.parent

PACKAGES: Final[dict[str, list[str]]] = {
    "tools": ["matplotlib", "rich", "uvloop"],
    "plain": ["-e", str(PROJECT)],
    "ours": ["-e", f"{PROJECT}[speed]", "pyinstrument", "py-spy"],
    "amplitude": ["amplitude-analytics"],
    "segment": ["segment-analytics-python"],
    "posthog": ["posthog[async]"],
    "rudder": ["rudder-sdk-python"],
    "snowplow": ["snowplow-tracker"],
    "mparticle": ["mparticle"],
}
NODE_PACKAGE: Final = "@amplitude/analytics-node"


def python_of(name: str) -> str:
    """Give the interpreter of an environment."""
    return str(VENVS / name / "bin" / "python")


def ensure(name: str) -> bool:
    """Make an environment unless it is there; False where that is impossible here."""
    if name == "node":
        return _ensure_node()
    done = VENVS / name / ".complete"
    if not done.exists():
        print(f"installing {', '.join(PACKAGES[name])} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENVS / name], check=True)
        install = [python_of(name), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *PACKAGES[name]], check=True)
        done.touch()
    return True


def _ensure_node() -> bool:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return False
    folder = VENVS / "node"
    if not (folder / "node_modules" / NODE_PACKAGE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--silent", "--prefix", str(folder), NODE_PACKAGE]
        subprocess.run(install, check=True)
    return True


def command(name: str, script: str) -> list[str]:
    """Give the start of the command line that runs a script in an environment."""
    interpreter = ["node", "--expose-gc"] if name == "node" else [python_of(name)]
    return [*interpreter, str(HERE / script)]


def version_of(name: str) -> str:
    """Name the measured release of an environment's SDK."""
    if name == "node":
        manifest = VENVS / "node" / "node_modules" / NODE_PACKAGE / "package.json"
        return f"{NODE_PACKAGE} {json.loads(manifest.read_text())['version']}"
    package = PACKAGES[name][-1].split("[")[0]
    if name in {"plain", "ours"}:
        package = "amplitude-async"
    code = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run(
        [python_of(name), "-c", code], capture_output=True, text=True, check=True
    )
    return f"{package} {found.stdout.strip()}"
