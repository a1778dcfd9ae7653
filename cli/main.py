"""The command `plugin-registry`."""

from importlib import import_module
from typing import Any

import click

_COMMANDS = {
    "up": "cli.up:up",
    "demo": "cli.demo:demo",
    "register": "cli.register:register",
    "status": "cli.register:status",
    "wait": "cli.register:wait",
    "list": "cli.register:list_plugins",
    "queue": "cli.queue:queue",
    "failures": "cli.operate:failures",
    "retry": "cli.operate:retry",
    "cancel": "cli.operate:cancel",
    "pause": "cli.on_call:pause",
    "resume": "cli.on_call:resume",
    "acknowledge": "cli.on_call:acknowledge",
    "token": "cli.tokens:token",
    "migrate": "cli.migrate:migrate",
    "backup": "cli.backup:backup",
    "restore": "cli.backup:restore",
    "doctor": "cli.doctor:doctor",
    "check-store": "cli.backup:check_store",
}


class _OnDemand(click.Group):
    """Loads a command when it is called: a CI job that registers need not wait for the database's code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101  # the table above says so
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            if ctx.obj is None:
                raise
            from cli.refusal import UNREACHABLE, Refusal  # noqa: PLC0415  # not for `--help`

            raise Refusal(
                f"What {ctx.obj.url} answered is not what a registry answers ({type(error).__name__}): "
                "is it one, and not of another version than this command?",
                UNREACHABLE,
            ) from error


@click.group(cls=_OnDemand)
@click.version_option(package_name="plugin-registry")
def main() -> None:
    """List plugins only after their artifacts were downloaded and hashed."""


if __name__ == "__main__":
    main(prog_name="plugin-registry")
