"""How a command says no: one sentence, no traceback, a status that scripts can tell apart."""

from typing import IO, Any

import click

REGISTERED = 0
USAGE = 2
REFUSED = 3
NOT_AUTHORISED = 4
STILL_RUNNING = 5
CONFLICT = 6
UNREACHABLE = 7
TROUBLE = 8
CANCELED = 9


class Refusal(click.ClickException):
    """Ends the command with *message* on stderr and *status*."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the sentence."""
        click.echo(f"plugin-registry: {self.message}", file=file, err=file is None)
