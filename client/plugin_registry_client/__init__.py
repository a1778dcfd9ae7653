"""The light client of a plugin registry: a Python API, and the command `plugin-registry`.

    with Client("https://registry.example", token) as registry:
        plugin = registry.register(name="nginx-logs", version="2.1.0", plugin_type="log",
                                   artifact_url="https://...", checksum="sha256:...")

Every error is a `RegistryError`; what the registry refused is a `ProblemAnswered`, which says whose fault it is and
what to do.
"""

from plugin_registry_client.asynchronous import AsyncClient
from plugin_registry_client.client import Client
from plugin_registry_client.errors import (
    BadRequest,
    BadSettings,
    Canceled,
    Conflict,
    NotARegistry,
    NotAuthorised,
    NoToken,
    ProblemAnswered,
    Refused,
    RegistryError,
    RegistryInTrouble,
    StillRunning,
    Unreachable,
    UpstreamFailed,
)
from plugin_registry_client.results import Event, Plugin, Registration, Token

__all__ = [
    "AsyncClient",
    "BadRequest",
    "BadSettings",
    "Canceled",
    "Client",
    "Conflict",
    "Event",
    "NoToken",
    "NotARegistry",
    "NotAuthorised",
    "Plugin",
    "ProblemAnswered",
    "Refused",
    "Registration",
    "RegistryError",
    "RegistryInTrouble",
    "StillRunning",
    "Token",
    "Unreachable",
    "UpstreamFailed",
]
