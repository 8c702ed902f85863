"""The command that says what stands between this machine and Amplitude."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import typer
from rich.console import Console

from amplitude_async import Config
from amplitude_async.amplitude.events import Event
from amplitude_async.cli.connection import ApiKey, Asked, ServerUrl, Zone, options_of
from amplitude_async.cli.doctor.findings import (
    Finding,
    Verdict,
    as_lines,
    findings_json,
    is_well,
)
from amplitude_async.cli.doctor.network import Way
from amplitude_async.cli.doctor.settings import configured, versions
from amplitude_async.cli.send.senders import ClientSender
from amplitude_async.cli.send.window import Fate
from amplitude_async.cli.stopping import DONE, IN_PART, Stop
from amplitude_async.exceptions import ConfigurationError

__all__ = ["doctor"]


def doctor(
    *,
    send: Annotated[
        bool, typer.Option("--send", help="Send one test event as well.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=60, help="Seconds for each step.")
    ] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of text.")
    ] = False,
    api_key: ApiKey = None,
    zone: Zone = None,
    server_url: ServerUrl = None,
) -> None:
    """Check key, zone, proxy, DNS, TLS and clock, and say what to do.

    Nothing is sent without --send, and the key is never shown.

    Exit codes: 0 nothing stands in the way, 1 something does, 2 wrong command,
    130 interrupted.
    """
    asked = Asked.of(api_key, zone, server_url)
    console = Console(highlight=False, soft_wrap=True)

    async def run() -> list[Finding]:
        found = []
        async with aclosing(_examine(asked, timeout, send=send)) as findings:
            async for finding in findings:
                found.append(finding)
                if not as_json:
                    for line in as_lines(finding):
                        console.print(line)
        return found

    found = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps(findings_json(found), indent=2))
    elif is_well(found):
        typer.echo("Nothing stands in the way.")
    raise typer.Exit(DONE if is_well(found) else IN_PART)


async def _examine(
    asked: Asked, timeout: float, *, send: bool
) -> AsyncGenerator[Finding, None]:
    yield versions()
    config = _config(asked)
    if isinstance(config, Finding):
        yield config
        return
    if config.api_key is None:
        text = "there is none"
        remedy = "set AMPLITUDE_API_KEY to the key in the project's settings"
        yield Finding("key", Verdict.TROUBLE, text, remedy)
    for finding in configured(config):
        yield finding
    way = Way(config.url, timeout, trust_env=config.trust_env)
    async with aclosing(way.examine()) as findings:
        async for finding in findings:
            yield finding
    if not send:
        text = "no event was sent: add --send for one"
        yield Finding("send", Verdict.SKIPPED, text)
    elif config.api_key is None:
        yield Finding("send", Verdict.SKIPPED, "there is no key to send with")
    elif not way.is_open:
        yield Finding("send", Verdict.SKIPPED, "there is no way to the server")
    else:
        yield await _sent(config, timeout)


def _config(asked: Asked) -> Config | Finding:
    try:
        found = options_of(asked)
        # What it logs would come between the lines, which say the same.
        config = Config(**found | {"logger": _quiet()})
    except ConfigurationError as error:
        remedy = "correct the variable AMPLITUDE_... of that name, or the option"
        return Finding("config", Verdict.TROUBLE, str(error), remedy)
    if config.opt_out:
        text = "AMPLITUDE_OPT_OUT is set, so that nothing is sent"
        return Finding("config", Verdict.TROUBLE, text, "unset it")
    return config


def _quiet() -> logging.Logger:
    logger = logging.getLogger("amplitude_async.cli.doctor")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


async def _sent(config: Config, timeout: float) -> Finding:
    event = Event("amplitude-async doctor", device_id="amplitude-async-doctor")
    sender = ClientSender(config, Stop())
    try:
        told, _ = await sender.send_one(event, timeout)
    finally:
        await sender.close(0.0)
    if told.fate is Fate.DELIVERED:
        text = f"one test event was taken: HTTP {told.code}"
        return Finding("send", Verdict.OK, text)
    text = f"the test event was not taken: {told.reason}"
    remedy = "look at key and zone: a key of one zone is unknown in the other"
    return Finding("send", Verdict.TROUBLE, text, remedy)
