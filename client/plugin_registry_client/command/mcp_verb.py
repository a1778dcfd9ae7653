"""`mcp`: serve the registry's tools to a model's client, which starts this and talks to it."""

import click

from plugin_registry_client.asynchronous import AsyncClient
from plugin_registry_client.command.asked import asked
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.errors import USAGE


@click.command()
def mcp() -> None:
    """Offer the registry to a model as tools, over stdin and stdout, until its client ends that.

    For the settings of such a client: the command is `plugin-registry`, its argument `mcp`; the registry is the one
    that every other verb means.
    """
    try:
        from plugin_registry_client.command.model_tools import tools_of  # noqa: PLC0415  # of the extra `mcp`
    except ModuleNotFoundError as error:
        raise Refusal("This needs the extra mcp: pip install 'plugin-registry-client[mcp]'.", USAGE) from error
    tools_of(AsyncClient(registry=asked().registry)).run()
