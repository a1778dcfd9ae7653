"""How a command says no: one sentence, no traceback, a status that scripts can tell apart."""

from collections.abc import Sequence
from typing import IO, Any

import click

from cli.terminal import say

REGISTERED = 0
USAGE = 2
REFUSED = 3
NOT_AUTHORISED = 4
STILL_RUNNING = 5
CONFLICT = 6
UNREACHABLE = 7
ALERTS = 8
CANCELED = 9
UPSTREAM_FAILED = 10


class Refusal(click.ClickException):
    """Ends the command with *message* on stderr, a line for each of *details*, and *status*."""

    def __init__(self, message: str, status: int = 1, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click reads it from the instance
        self._details = details

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002  # click's signature
        """Print it."""
        say(f"plugin-registry: {self.message}", *(f"  {each}" for each in self._details), err=True)
