"""What every command of a client has in common: which registry is asked, and whether a program reads the answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from plugin_registry_client.client import Client


@dataclass
class Asked:
    """One run of the command: the registry that was named, who asks it by now, and for whom."""

    registry: str | None = None
    client: Client | None = None
    as_json: bool = False


def asked() -> Asked:
    """Return what holds for the command that runs."""
    return click.get_current_context().find_root().ensure_object(Asked)


def connected() -> Client:
    """Return a client of the registry that is meant.

    Raises:
        BadSettings, NoToken: none can be told.
    """
    here = asked()
    here.client = here.client or Client(registry=here.registry)
    return here.client


def _note(context: click.Context, _parameter: click.Parameter, as_json: bool) -> bool:
    context.find_root().ensure_object(Asked).as_json = as_json
    return as_json


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`: whatever the outcome is, a document on stdout tells it."""
    say = "Print the outcome alone, as JSON, on stdout."
    return click.option("--json", "json_wanted", is_flag=True, callback=_note, help=say)(command)
