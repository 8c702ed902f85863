"""Sends one event and says what became of it."""

import asyncio
import json
from typing import Any, Final

import typer
from pydantic import ValidationError
from pydantic_core import from_json

from amplitude_async import Config
from amplitude_async.amplitude.events import Event
from amplitude_async.amplitude.leniency import explain
from amplitude_async.cli.connection import without_path
from amplitude_async.cli.send.senders import Checker, ClientSender
from amplitude_async.cli.send.window import Fate, Told
from amplitude_async.cli.stopping import DONE, IN_PART, INCOMPLETE, Stop
from amplitude_async.cli.terminal import printable, refusal

__all__ = ["event_of", "send_one"]

_LONGEST = 400


def event_of(event_type: str, fields: dict[str, Any]) -> Event:
    """Make the event.

    Raises:
        typer.Exit: with 2, where a value does not fit.
    """
    try:
        return Event(event_type, **fields)
    except ValidationError as error:
        raise refusal(explain(error)) from None


def send_one(
    event: Event, config: Config, *, timeout: float, dry_run: bool, as_json: bool
) -> int:
    """Send one event, print what became of it, and return the exit code."""
    told, body, insert_id = asyncio.run(
        _checked(event, config) if dry_run else _sent(event, config, timeout)
    )
    state = _state(told, dry_run=dry_run)
    if as_json:
        shown = {
            "status": state,
            "code": told.code,
            "message": told.reason,
            "insert_id": insert_id,
            "destination": without_path(config.url),
            "event": body,
        }
        typer.echo(json.dumps(shown, indent=2))
    else:
        whose = event.user_id or event.device_id
        line = f"{state}: {event.event_type}" + (f" of {whose}" if whose else "")
        if told.reason:
            line += f" - {told.reason}"
        elif not dry_run:
            line += f" - HTTP {told.code} from {without_path(config.url)}"
        typer.echo(printable(line, _LONGEST))
        if dry_run and told.fate is Fate.DELIVERED:
            typer.echo(json.dumps(body, indent=2))
    return _CODES[told.fate]


_CODES: Final = {Fate.DELIVERED: DONE, Fate.REJECTED: IN_PART, Fate.LEFT: INCOMPLETE}


def _state(told: Told, *, dry_run: bool) -> str:
    if told.fate is Fate.LEFT:
        return "not delivered"
    if dry_run and told.fate is Fate.DELIVERED:
        return "good, not sent"
    return str(told.fate.value)


async def _checked(event: Event, config: Config) -> tuple[Told, Any, str | None]:
    checker = Checker(config)
    told = checker.look(event)
    body = from_json(checker.body) if checker.body else event.to_wire()
    return told, body, event.insert_id


async def _sent(
    event: Event, config: Config, timeout: float
) -> tuple[Told, Any, str | None]:
    sender = ClientSender(config, Stop())
    try:
        told, result = await sender.send_one(event, timeout)
    finally:
        await sender.close(0.0)
    if result is None:
        return told, event.to_wire(), event.insert_id
    return told, result.event.to_wire(), result.insert_id
