"""How a command says no: one sentence, no traceback, a status that scripts can tell apart."""

from collections.abc import Mapping, Sequence
from typing import IO, Any

import click

from plugin_registry_client.command.terminal import say
from plugin_registry_client.errors import FAILED, RegistryError


class Refusal(click.ClickException):
    """Ends the command with *message* on stderr, a line for each of *details*, and *status*.

    *document* is what a program is told of it instead.
    """

    def __init__(
        self,
        message: str,
        status: int = FAILED,
        *,
        details: Sequence[str] = (),
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc]  # click reads it from the instance
        self.details = tuple(details)
        self.document = document or {"code": "refused", "title": message, "exitStatus": status}

    @classmethod
    def of(cls, error: RegistryError) -> "Refusal":
        """Return the refusal that *error* amounts to."""
        return cls(str(error), error.exit_status, details=error.details, document=error.document)

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002  # click's signature
        """Print it."""
        say(f"plugin-registry: {self.message}", *(f"  {each}" for each in self.details), err=True)
