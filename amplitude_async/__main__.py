"""Runs the command line: ``python -m amplitude_async``."""

from amplitude_async.cli import main

__all__: list[str] = []

main()
