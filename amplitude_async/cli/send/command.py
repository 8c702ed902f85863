"""The command that sends one event, or the lines of a file."""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from amplitude_async import Config
from amplitude_async.cli.connection import ApiKey, Asked, ServerUrl, Zone, config_of
from amplitude_async.cli.send.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointFile,
)
from amplitude_async.cli.send.lines import CsvLines, JsonLines, Lines
from amplitude_async.cli.send.mapping import Place, read_settings
from amplitude_async.cli.send.moments import milliseconds
from amplitude_async.cli.send.rejections import Rejections
from amplitude_async.cli.send.rows import csv_rows
from amplitude_async.cli.send.senders import Checker, ClientSender
from amplitude_async.cli.send.sending import Job, Run
from amplitude_async.cli.send.single import event_of, send_one
from amplitude_async.cli.send.source import Batches, Source
from amplitude_async.cli.send.summary import print_summary, progress, summary_json
from amplitude_async.cli.send.target import Target, fields_of, target_of
from amplitude_async.cli.send.turn import TakenError, turn
from amplitude_async.cli.stopping import DONE, IN_PART, INCOMPLETE, Stop
from amplitude_async.cli.terminal import refusal

__all__ = ["send"]

_CSV: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_TSV: Final = (".tsv", ".tsv.gz")


@dataclass(frozen=True)
class Options:
    """What the command line says about a file."""

    format: str
    map: Sequence[str]
    settings: Sequence[tuple[Place, Any]]
    delimiter: str
    only_mapped: bool
    rejected: Path | None
    checkpoint: Path | None
    name: str | None
    restart: bool
    rate: float | None
    timeout: float
    dry_run: bool
    as_json: bool


def send(  # noqa: PLR0913 - each is an option
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-|EVENT",
            help="A file of events, - for standard input, or else an event type.",
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="Properties of one event: JSON where it is that, else text.",
        ),
    ] = None,
    *,
    user: Annotated[
        str | None, typer.Option("--user", help="Whose event: a user_id.")
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Or a device_id.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--time", help="When: milliseconds, or ISO 8601; now."),
    ] = None,
    insert_id: Annotated[
        str | None,
        typer.Option("--insert-id", help="The id by which the server knows doubles."),
    ] = None,
    as_event: Annotated[
        bool, typer.Option("--event", help="An event, even if a file has its name.")
    ] = False,
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="auto (by the name), json (also exports) or csv."
        ),
    ] = "auto",
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="PLACE=COLUMN",
            help="CSV: where a column goes, as user_id=customer; may be repeated.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PLACE=VALUE",
            help="For events that have none there, as platform=Web; may be repeated.",
        ),
    ] = None,
    only_mapped: Annotated[
        bool, typer.Option("--only-mapped", help="CSV: leave out all other columns.")
    ] = False,
    delimiter: Annotated[
        str | None,
        typer.Option("--delimiter", help="CSV: between cells; a character or tab."),
    ] = None,
    rejected: Annotated[
        Path | None,
        typer.Option("--rejected", help="Write rejected lines to this new file."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Where to note how far it is; beside FILE."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="A name for standard input, to resume by."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="From the first line, once more.")
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.1, help="At most so many events a second."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=0.1, help="Stop after so many seconds without an answer."
        ),
    ] = 60.0,
    batch: Annotated[
        bool, typer.Option("--batch", help="Use the Batch API: for much at a time.")
    ] = False,
    min_id_length: Annotated[
        int | None,
        typer.Option("--min-id-length", min=1, help="Shortest id the server takes; 5."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, send nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what came of it as JSON.")
    ] = False,
    api_key: ApiKey = None,
    zone: Zone = None,
    server_url: ServerUrl = None,
) -> None:
    """Send a file of events, each once, or one event.

    A file is JSON Lines, an export of Amplitude (also .gz) or CSV.
    After Ctrl-C or a kill the same command goes on where it was.

    Exit codes: 0 all delivered, 1 some rejected, 2 wrong command, nothing done,
    3 not all of it was taken, 130 interrupted.
    """
    words = words or []
    asked = Asked.of(api_key, zone, server_url, batch, min_id_length)
    one = {"--user": user, "--device": device, "--time": at, "--insert-id": insert_id}
    given = {option: value for option, value in one.items() if value is not None}
    try:
        settings = read_settings(set_ or ())
        target = target_of(
            what, as_event=as_event, event_options=list(given), words=words
        )
        options = Options(
            format=_format(format_, target),
            map=map_ or (),
            settings=settings,
            delimiter=_delimiter(delimiter, target),
            only_mapped=only_mapped,
            rejected=rejected,
            checkpoint=checkpoint,
            name=name,
            restart=restart,
            rate=rate,
            timeout=timeout,
            dry_run=dry_run,
            as_json=as_json,
        )
        if target.event is not None:
            _refuse_file_options(options, what)
            fields = fields_of(words, settings)
    except ValueError as error:
        raise refusal(str(error)) from None
    if target.event is None:
        raise typer.Exit(_send_file(target.path, options, asked))
    fields |= {"user_id": user} if user is not None else {}
    fields |= {"device_id": device} if device is not None else {}
    fields |= {"insert_id": insert_id} if insert_id is not None else {}
    if at is not None:
        fields["time"] = _time(at)
    event = event_of(target.event, fields)
    config = config_of(asked, needs_key=not dry_run, strict=True, logger=_silent())
    code = send_one(event, config, timeout=timeout, dry_run=dry_run, as_json=as_json)
    raise typer.Exit(code)


def _format(wanted: str, target: Target) -> str:
    if wanted not in {"auto", "json", "csv"}:
        msg = f"--format {wanted}: choose auto, json or csv"
        raise ValueError(msg)
    if wanted != "auto":
        return wanted
    name = "" if target.path is None else target.path.name.lower()
    return "csv" if name.endswith(_CSV) else "json"


def _delimiter(wanted: str | None, target: Target) -> str:
    if wanted is None:
        name = "" if target.path is None else target.path.name.lower()
        return "\t" if name.endswith(_TSV) else ","
    wanted = "\t" if wanted in {"tab", "\\t"} else wanted
    if len(wanted) != 1 or wanted in '"\r\n':
        msg = f"--delimiter {wanted}: give one character, or tab"
        raise ValueError(msg)
    return wanted


def _refuse_file_options(options: Options, what: str) -> None:
    given = {
        "--map": options.map,
        "--only-mapped": options.only_mapped,
        "--rejected": options.rejected,
        "--checkpoint": options.checkpoint,
        "--name": options.name,
        "--restart": options.restart,
        "--rate": options.rate,
    }
    wrong = next((option for option, value in given.items() if value), None)
    if wrong is not None:
        msg = f"{wrong} goes with a file, and there is no file {what}: look at its path"
        raise ValueError(msg)


def _time(text: str) -> int:
    try:
        return milliseconds(text)
    except ValueError as error:
        raise refusal(f"--time {text} {error}") from None


def _silent() -> logging.Logger:
    """Make a logger for a client of which the command itself tells everything."""
    logger = logging.getLogger("amplitude_async.cli.send")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def _send_file(path: Path | None, options: Options, asked: Asked) -> int:
    _refuse_half_a_name(path, options)
    config = config_of(
        asked,
        needs_key=not options.dry_run,
        # Of a file, nothing is left out in silence.
        strict=True,
        flush_interval=1.0,
        logger=_silent(),
    )
    try:
        source = Source(path, options.name)
    except (OSError, ValueError) as error:
        shown = "standard input" if path is None else str(path)
        raise refusal(f"{shown} cannot be sent: {_reason(error)}") from None
    with closing(source), ExitStack() as stack:
        job = _job(source, options, config, stack)
        if job.begun.complete and not options.dry_run:
            return _nothing_left(job, _name_of(source), options)
        return _run(job, source, options, config)


def _refuse_half_a_name(path: Path | None, options: Options) -> None:
    if path is not None and options.name is not None:
        raise refusal("--name goes with standard input: a file is known by its bytes")
    if path is None and options.name is None and options.checkpoint is not None:
        raise refusal(
            "--checkpoint needs a --name for standard input, by which another run "
            "knows it again"
        )
    if options.name is not None and options.checkpoint is None and not options.dry_run:
        raise refusal("--name goes with --checkpoint, where it is noted how far it is")


def _run(job: Job, source: Source, options: Options, config: Config) -> int:
    name = _name_of(source)
    batches: Batches = source.lines()
    if options.format == "csv":
        batches = csv_rows(batches, options.delimiter)
    started, run = time.monotonic(), Run(job, Stop())
    with progress(Console(stderr=True), source.size) as show:

        async def send_all() -> None:
            sender = (
                Checker(config) if options.dry_run else ClientSender(config, run.stop)
            )
            await run.send(batches, sender, show)

        try:
            asyncio.run(send_all())
            job.rejections.flush()
        except ValueError as error:
            raise refusal(f"{name}: {error}") from None
        except (OSError, EOFError) as error:
            run.stop.ask(_reason(error), INCOMPLETE)
    code = run.stop.code or (IN_PART if run.checkpoint().rejected else DONE)
    seconds = time.monotonic() - started
    if options.as_json:
        typer.echo(json.dumps(summary_json(run, name, seconds, code), indent=2))
    else:
        kept = None if options.rejected is None else str(options.rejected)
        print_summary(run, name, seconds, dry_run=options.dry_run, rejected_to=kept)
    return code


def _name_of(source: Source) -> str:
    return "standard input" if source.path is None else str(source.path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        name = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{name}"
    return str(error)


def _lines_of(options: Options) -> Lines:
    if options.format == "csv":
        return CsvLines(
            options.map,
            options.settings,
            delimiter=options.delimiter,
            only_mapped=options.only_mapped,
        )
    if options.map or options.only_mapped:
        raise refusal("--map goes with CSV: add --format csv, if that is what it is")
    return JsonLines(options.settings)


def _job(source: Source, options: Options, config: Config, stack: ExitStack) -> Job:
    lines = _lines_of(options)
    identity = (source.identity or b"").hex()
    fresh = Checkpoint(identity, f"{config.url.partition('?')[0]} {config.fingerprint}")
    file = None if options.dry_run else _checkpoint_file(source, options, stack)
    try:
        earlier = None if file is None else _earlier(file, fresh, options)
    except CheckpointError as error:
        raise refusal(str(error)) from None
    begun = earlier or fresh
    # Before the checkpoint is written: what refuses changes nothing.
    rejections = Rejections() if begun.complete else _rejections(options, earlier)
    stack.enter_context(closing(rejections))
    if file is not None:
        try:
            # At once: where it cannot be written, nothing is sent.
            file.write(begun)
        except OSError as error:
            rejections.discard()
            raise _unwritable(file.path, error) from None
    return Job(
        lines,
        rejections,
        begun,
        file,
        new_id=source.derived_id,
        rate=options.rate,
        patience=options.timeout,
    )


def _checkpoint_file(
    source: Source, options: Options, stack: ExitStack
) -> CheckpointFile | None:
    if not source.is_resumable:
        if options.checkpoint is not None:
            raise refusal(
                f"--checkpoint: {source.path} is a pipe, which another run would not "
                "know again: send it as standard input, with - and a --name"
            )
        return None
    path = options.checkpoint or _beside(source)
    if path is None:
        return None
    try:
        stack.enter_context(turn(path))
    except TakenError:
        raise refusal(
            f"another run has the checkpoint {path} now: wait until it has ended"
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None
    return CheckpointFile(path)


def _earlier(
    file: CheckpointFile, fresh: Checkpoint, options: Options
) -> Checkpoint | None:
    if options.restart:
        file.read()  # a file of another kind is not written over
        return None
    return file.earlier(fresh.source, fresh.destination)


def _unwritable(path: Path, error: OSError) -> typer.Exit:
    return refusal(
        f"the checkpoint {path} cannot be written ({error.strerror or error}): "
        "name another with --checkpoint"
    )


def _rejections(options: Options, earlier: Checkpoint | None) -> Rejections:
    path = options.rejected
    try:
        return Rejections(path, None if earlier is None else earlier.line)
    except FileExistsError:
        raise refusal(
            f"--rejected {path} exists, and is not what an earlier run of this wrote: "
            "choose a new name"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise refusal(f"--rejected {path} cannot be written: {reason}") from None


def _beside(source: Source) -> Path | None:
    if source.path is None:
        return None
    return source.path.with_name(source.path.name + ".checkpoint")


def _nothing_left(job: Job, name: str, options: Options) -> int:
    code = IN_PART if job.begun.rejected else DONE
    if options.as_json:
        # Complete as it was: nothing was read this time.
        shown = summary_json(Run(job, Stop()), name, 0.0, code) | {"complete": True}
        typer.echo(json.dumps(shown, indent=2))
        return code
    typer.echo(
        f"{name} was sent before: {job.begun.delivered:,} delivered, "
        f"{job.begun.rejected:,} rejected. --restart sends it once more."
    )
    return code
