"""The command line: a local server, a demo of the whole journey, care for spools."""

import sys

from amplitude_async.cli.pipes import (
    PIPE_CLOSED,
    nobody_reads,
    silence,
    standard_output,
)

__all__ = ["main"]

_INTERRUPTED = 130
_EXTRA = frozenset({"click", "rich", "typer"})


def main() -> None:
    """Run the command line, or say how to install what it needs.

    Raises:
        SystemExit: always; 2 where the extra ``cli`` is missing, 130 at a Ctrl-C.
    """
    try:
        # Not at the top: the package is complete without these two.
        from amplitude_async.cli.app import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f'The command line needs {error.name}: pip install "amplitude-async[cli]"\n'
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        # Who is that fast knows what was pressed: no traceback tells them more.
        raise SystemExit(_INTERRUPTED) from None
    output = standard_output()
    try:
        app()
    except (BrokenPipeError, SystemExit) as ended:
        # Known here only: what lies between takes it for a failure of the command.
        failed = isinstance(ended, BrokenPipeError) or ended.code == 1
        if not (failed and nobody_reads(output)):
            raise
        silence()
        raise SystemExit(PIPE_CLOSED) from None
