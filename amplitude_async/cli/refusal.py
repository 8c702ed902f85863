"""How a command says that it cannot do what it was asked to."""

import typer

__all__ = ["refusal"]


def refusal(message: str) -> typer.Exit:
    """Say on standard error why nothing was done; the exit code is 2."""
    typer.echo(f"Error: {message}", err=True)
    return typer.Exit(2)
