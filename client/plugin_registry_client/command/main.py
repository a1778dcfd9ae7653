"""The command `plugin-registry`: a client's verbs, and the registry's own where that is installed."""

import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from io import TextIOWrapper
from typing import Any

import click

from plugin_registry_client.command.asked import Asked

VERBS = {
    "register": "register:register",
    "ci": "ci:ci",
    "wait": "register:wait",
    "status": "register:status",
    "list": "register:list_plugins",
    "login": "login:login",
    "logout": "login:logout",
    "queue": "queue:queue",
    "failures": "operate:failures",
    "retry": "operate:retry",
    "cancel": "operate:cancel",
    "pause": "on_call:pause",
    "resume": "on_call:resume",
    "acknowledge": "on_call:acknowledge",
    "events": "webhooks:events",
    "webhook": "webhooks:webhook",
    "token": "tokens:token",
    "mcp": "mcp_verb:mcp",
}
"""A client's: modules of this folder."""
OF_THE_REGISTRY = ("up", "demo", "migrate", "backup", "restore", "doctor", "check-store")
"""Those that the distribution `plugin-registry` brings, by entry points of this group. It has a `token` of its own,
which can make the first one, straight in the store."""
GROUP = "plugin_registry.verbs"


class _OnDemand(click.Group):
    """Loads a command when it is called: a CI job that registers need not wait for the database's code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        installed = {each.name for each in entry_points(group=GROUP)}
        return [*VERBS, *(each for each in OF_THE_REGISTRY if each in installed)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command: Any
        if (found := _of_the_registry(cmd_name)) is not None:
            command = found.load()
        elif cmd_name in VERBS:
            module, _, attribute = VERBS[cmd_name].partition(":")
            command = getattr(import_module(f"plugin_registry_client.command.{module}"), attribute)
        elif cmd_name in OF_THE_REGISTRY:
            raise click.UsageError(
                f"`{cmd_name}` is a verb of the registry itself, and here is only its client: "
                "install the distribution plugin-registry."
            )
        else:
            return None
        assert isinstance(command, click.Command)  # noqa: S101  # the tables above say so
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.UsageError, click.Abort) as error:
            if "--json" in sys.argv:  # it may not have been parsed yet
                _say_json({"code": "usage", **_told(error)})
            raise
        except Exception as error:
            refusal = _refusal_of(error, ctx.ensure_object(Asked))
            if refusal is None:
                raise
            if ctx.ensure_object(Asked).as_json:
                _say_json(refusal.document)
            raise refusal from error


def _say_json(document: object) -> None:
    from plugin_registry_client.command.terminal import say_json  # noqa: PLC0415  # not for `--help`

    say_json(document)


def _told(error: click.UsageError | click.Abort) -> dict[str, object]:
    if isinstance(error, click.Abort):
        return {"title": "It was given up.", "exitStatus": 1}
    return {"title": error.format_message(), "exitStatus": error.exit_code}


def _of_the_registry(verb: str) -> EntryPoint | None:
    """Return where the registry's distribution has *verb*; a client's own are not looked up, which takes a while."""
    if verb in VERBS and verb != "token":
        return None
    return next(iter(entry_points(group=GROUP, name=verb)), None)


def _refusal_of(error: Exception, asked: Asked) -> Any:
    """Return the refusal with which a command ends that met *error*; None where it is another's."""
    from plugin_registry_client.command.refusal import Refusal  # noqa: PLC0415
    from plugin_registry_client.errors import NotARegistry, RegistryError  # noqa: PLC0415

    if isinstance(error, Refusal):
        return error
    if isinstance(error, RegistryError):
        return Refusal.of(error)
    stumbles = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
    if asked.client is None or not isinstance(error, stumbles):
        return None
    return Refusal.of(
        NotARegistry(
            f"What {asked.client.url} answered is not what a registry answers ({type(error).__name__}): "
            "is it one, and not of another version than this command?"
        )
    )


@click.group(cls=_OnDemand)
@click.option("--registry", metavar="NAME", help="The registry that `login` keeps under this name.")
@click.version_option(package_name="plugin-registry-client")
@click.pass_context
def main(ctx: click.Context, registry: str | None) -> None:
    """List plugins only after their artifacts were downloaded and hashed."""
    ctx.obj = Asked(registry)
    for stream in (sys.stdout, sys.stderr):  # what an encoding has no form for is shown by its number
        with suppress(OSError):  # of a stream that is no more what it was when Python started
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
