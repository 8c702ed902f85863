"""The commands and their options; what they do stands in modules of their own."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from amplitude_async import __version__
from amplitude_async.cli.demo.command import demo
from amplitude_async.cli.dev.command import dev
from amplitude_async.cli.doctor.command import doctor
from amplitude_async.cli.emulator import serve
from amplitude_async.cli.send.command import send
from amplitude_async.cli.tail.command import tail
from amplitude_async.cli.terminal import refusal
from amplitude_async.emulator import Emulator

__all__ = ["app"]

app = typer.Typer(
    name="amplitude-async",
    help="A local server, events by hand or from files, and a look into spools.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # A traceback with the values of locals could show a key.
    pretty_exceptions_enable=False,
)


def _print_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=lambda wanted: _print_version(wanted=wanted),
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Take the options that come before a command."""


@app.command()
def emulator(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on, 0: any free one.")
    ] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    *,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines connect.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host name by which its pages may be read; may be repeated."
        ),
    ] = None,
    requests: Annotated[
        bool, typer.Option("--requests", help="Print each request as well.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print lines of JSON.")
    ] = False,
) -> None:
    """Run a local server until Ctrl-C or SIGTERM; print each event and its verdict.

    Exit codes: 0 stopped, 2 wrong command or a port that is taken.
    """
    try:
        server = Emulator(
            host, port, allow_remote=allow_remote, allowed_hosts=allowed_host or ()
        )
    except ValueError:
        raise refusal(
            f"--host {host} can be reached by other machines: use 127.0.0.1, or add "
            "--allow-remote if that is wanted"
        ) from None
    try:
        serve(server, Console(), requests=requests, as_json=as_json)
    except OSError as error:
        raise refusal(
            f"cannot listen on {host} port {port} ({error.strerror or error}): "
            "choose another --port (0 takes any free one) or --host"
        ) from None


app.command()(demo)
# What stands behind the command's name is the command's.
app.command(context_settings={"allow_interspersed_args": False})(dev)
app.command()(send)
app.command()(tail)
app.command()(doctor)

if sys.platform != "win32":
    # Spools rest on file locks that Windows does not have.
    from amplitude_async.cli.relay.commands import relay_app
    from amplitude_async.cli.spool.commands import spool_app

    # Dead letters are shown in the words that spools have.
    app.add_typer(relay_app)
    app.add_typer(spool_app)
