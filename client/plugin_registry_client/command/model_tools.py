"""`mcp`: the registry as tools for agents that are models, over stdin and stdout (Model Context Protocol).

A tool that fails says what happened, whose fault it is and what to do next, in words. No tool takes or tells a token:
it is this process's, as for every other verb.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from plugin_registry_client.asynchronous import AsyncClient
from plugin_registry_client.client import submission
from plugin_registry_client.errors import ProblemAnswered, RegistryError
from plugin_registry_client.results import Plugin, Registration

P = ParamSpec("P")
T = TypeVar("T")
MOST_LISTED = 50
INSTRUCTIONS = (
    "A registry of monitoring-agent plugins. It downloads the artifact at a URL, hashes it, and lists the plugin "
    "only if the SHA-256 is the one that was declared. Compute that from a copy you trust, not what the URL has. "
    "To submit the same again is always safe. When a tool fails it says whose fault it is and what to do: if the "
    "submitter's, correct what it names; if the artifact's host's or the registry's, try again later."
)
_READS = ToolAnnotations(read_only_hint=True)
_ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)

Name = Annotated[str, Field(description="Human-readable: letters, digits, space, '.', '_', '-'")]
Version = Annotated[str, Field(description="SemVer 2.0.0, without a leading v, such as 2.1.0")]
PluginType = Annotated[Literal["log", "metric", "trace"], Field(description="What the plugin collects")]
ArtifactUrl = Annotated[str, Field(description="https URL of the artifact itself, reachable without a log-in")]
Checksum = Annotated[str, Field(description="'sha256:' and the 64 hex digits of the artifact")]
ConfigSchema = Annotated[str, Field(description="A JSON Schema of its configuration, as a text")]
Runtime = Annotated[str, Field(description="Runtime environment that it needs")]
RegistrationId = Annotated[str, Field(description="The id that register gave, 'registration-...'")]
Seconds = Annotated[float, Field(ge=0, le=600, description="How long to wait for the outcome, in seconds")]


def tools_of(client: AsyncClient) -> MCPServer:
    """Return a server that has a tool for each thing that an agent does with the registry of *client*."""
    server = MCPServer("plugin-registry", instructions=INSTRUCTIONS)
    tools = _Tools(client)
    server.tool(annotations=_ADDS)(tools.register)
    for tool in (tools.dry_run, tools.wait, tools.look_up, tools.list_plugins, tools.list_registrations):
        server.tool(annotations=_READS)(tool)
    return server


def _told(tool: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Have *tool* say in words what it met: what happened, why, whose fault it is, what to do next."""

    @wraps(tool)
    async def told(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return await tool(*arguments, **options)
        except RegistryError as error:
            raise ToolError(in_words(error)) from error

    return told


class _Tools:
    """Each method is a tool, and its docstring what a model reads of it."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @_told
    async def dry_run(
        self,
        *,
        name: Name,
        version: Version,
        plugin_type: PluginType,
        artifact_url: ArtifactUrl,
        checksum: Checksum,
        config_schema: ConfigSchema = "{}",
        plugin_runtime: Runtime = "",
    ) -> dict[str, Any]:
        """Check a submission as far as goes without a download: token, fields, URL, conflicts. Changes nothing."""
        standing = await self._client.dry_run(
            submission(name, version, plugin_type, artifact_url, checksum, config_schema, plugin_runtime)
        )
        if standing is not None:
            return _listed(standing)
        return {"outcome": "free", "next": "Nothing stands in the way: call register with the same."}

    @_told
    async def register(
        self,
        *,
        context: Context,
        name: Name,
        version: Version,
        plugin_type: PluginType,
        artifact_url: ArtifactUrl,
        checksum: Checksum,
        config_schema: ConfigSchema = "{}",
        plugin_runtime: Runtime = "",
        wait_s: Seconds = 60,
    ) -> dict[str, Any]:
        """Have a plugin downloaded, verified and listed; if wait_s does not suffice, return the id to wait for."""
        submitted = await self._client.submit(
            submission(name, version, plugin_type, artifact_url, checksum, config_schema, plugin_runtime)
        )
        if isinstance(submitted, Plugin):
            return _listed(submitted)
        return await _outcome(self._client, submitted, wait_s, context)

    @_told
    async def wait(self, context: Context, registration_id: RegistrationId, wait_s: Seconds = 60) -> dict[str, Any]:
        """Wait for a registration that was submitted before; it goes on whether or not anybody waits."""
        return await _outcome(self._client, await self._client.registration(registration_id), wait_s, context)

    @_told
    async def look_up(
        self,
        plugin_id: Annotated[str | None, Field(description="'plugin-...'; or give registration_id")] = None,
        registration_id: Annotated[str | None, Field(description="'registration-...'")] = None,
    ) -> dict[str, Any]:
        """Show one plugin, or how far one registration has come and why it failed."""
        if (plugin_id is None) == (registration_id is None):
            raise ToolError("Give either plugin_id or registration_id.")
        if plugin_id is not None:
            return _listed(await self._client.plugin(plugin_id))
        return _state(await self._client.registration(str(registration_id)))

    @_told
    async def list_plugins(
        self,
        name: Annotated[str | None, Field(description="Only this name, in any case, with any separators")] = None,
        version: Annotated[str | None, Field(description="Only this version")] = None,
        plugin_type: Annotated[Literal["log", "metric", "trace"] | None, Field(description="Only this type")] = None,
    ) -> dict[str, Any]:
        """List plugins, newest first, fifty at most: each was verified when it was registered."""
        wanted = {"name": name, "version": version, "pluginType": plugin_type}
        return await _fifty(
            self._client.plugins(**{key: value for key, value in wanted.items() if value is not None})
        )

    @_told
    async def list_registrations(
        self,
        status: Annotated[
            Literal["queued", "verifying", "registered", "rejected", "failed", "canceled"] | None,
            Field(description="Only those that are in this state"),
        ] = None,
        name: Annotated[str | None, Field(description="Only of this name")] = None,
    ) -> dict[str, Any]:
        """List registrations, newest first, fifty at most, those that failed too, with the reason."""
        wanted = {"status": status, "name": name}
        return await _fifty(
            self._client.registrations(**{key: value for key, value in wanted.items() if value is not None})
        )


async def _outcome(
    client: AsyncClient, registration: Registration, wait_s: float, context: Context
) -> dict[str, Any]:
    async for news in client.follow(registration, timeout_s=wait_s):
        registration = news
        known = news.document
        await context.report_progress(known["bytesDownloaded"], known["artifactBytes"], f"It is {known['status']}.")
    if registration.final:
        return _listed(await client.wait(registration))
    state = _state(registration)
    return {**state, "next": f"It goes on by itself: call wait with registration_id {registration.id}."}


def _listed(plugin: Plugin) -> dict[str, Any]:
    return {"outcome": "listed", "plugin": dict(plugin.document)}


def _state(registration: Registration) -> dict[str, Any]:
    return {"outcome": registration.status, "registration": dict(registration.document)}


async def _fifty(found: Any) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    async for each in found:
        if len(items) == MOST_LISTED:
            return {"items": items, "next": f"There are more than {MOST_LISTED}: filter by name."}
        items.append(dict(each.document))
    return {"items": items}


def in_words(error: RegistryError) -> str:
    """Return all that an agent needs to know of *error*."""
    lines = [str(error)]
    if isinstance(error, ProblemAnswered):
        later = "The same may succeed later." if error.retryable else "The same will not succeed later."
        lines += [f"cause: {error.cause or error.code}", f"at fault: {error.fault}", later]
    return "\n".join([*lines, *error.details])
