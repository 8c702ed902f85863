"""Draw a flame graph of our client delivering 200,000 events: ``nox -s profile``.

Writes benchmarks/out/flame.svg (py-spy, samples from outside) and profile.html
(pyinstrument, a tree to fold and unfold); either opens in a browser.
"""

# ruff: noqa: S603 - every command line is made of names in this folder

import argparse
import subprocess
import sys

from environments import HERE, command, ensure
from run import OUT, sink

__all__ = ["main"]


def main() -> None:
    """Profile one delivery to a local sink."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    given = parser.parse_args()
    for name in ("tools", "ours"):
        ensure(name)
    OUT.mkdir(exist_ok=True)
    with sink() as url:
        ours = [*command("ours", "peers/ours.py"), "burst", "--url", url]
        ours += ["--events", str(given.events)]
        tree = OUT / "profile.html"
        subprocess.run([*ours, "--profile", str(tree)], check=True)
        graph = OUT / "flame.svg"
        spy = HERE / ".venvs" / "ours" / "bin" / "py-spy"
        record = [str(spy), "record", "--rate", "500", "--output", str(graph)]
        # Where the system forbids looking into processes, the tree remains.
        done = subprocess.run([*record, "--", *ours], check=False).returncode == 0
    print(f"wrote {tree}" + (f" and {graph}" if done else ""), file=sys.stderr)


if __name__ == "__main__":
    main()
