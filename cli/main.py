"""The command `plugin-registry`."""

from pathlib import Path

import click

from cli.demo import run_demo
from cli.embedded import curl_example, embedded_registry, run_until_told
from cli.refusal import Refusal
from cli.register import list_plugins, register, status
from cli.tokens import token
from shared.database import SchemaMismatch, open_database
from shared.errors import StoreUnavailable
from shared.settings import BadSettings, read_settings


@click.group()
@click.version_option(package_name="plugin-registry")
def main() -> None:
    """List plugins only after their artifacts were downloaded and hashed."""


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder (default: REGISTRY_STATE_DIR).")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
def up(host: str, port: int, state: Path | None, workers: int) -> None:
    """Run the whole registry on this machine until Ctrl-C."""
    try:
        folder = read_settings(**({"state_dir": state} if state else {})).state_dir
    except BadSettings as error:
        raise Refusal(f"{error}.", 2) from error
    with embedded_registry(folder, host=host, port=port, workers=workers) as (address, opened, supervisor):
        bearer = f'-H "Authorization: Bearer $(cat {opened.token_file})"'
        click.echo(f"Plugin registry at {address}  (API documentation: {address}/docs)")
        click.echo(f"State in {opened.path}, a token for everything in {opened.token_file}")
        click.echo(f"\nList what is registered:\n  curl {address}/api/v1/plugins {bearer}")
        click.echo(f"\nRegister a plugin:\n  {curl_example(address, opened.token_file)}")
        click.echo("\nCtrl-C stops everything.")
        run_until_told(supervisor)
        click.echo("Stopping ...", err=True)


@main.command()
def demo() -> None:
    """Show a real artifact registered and a tampered one refused."""
    run_demo()


@main.command()
def migrate() -> None:
    """Bring the store at REGISTRY_DATABASE_URL up to this version."""
    try:
        settings = read_settings()
        if settings.embedded_store:
            settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        open_database(settings.database_url).migrate()
    except BadSettings as error:
        raise Refusal(f"{error}.", 2) from error
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(str(error)) from error
    click.echo("The store is up to date.")


main.add_command(register)
main.add_command(status)
main.add_command(list_plugins)
main.add_command(token)

if __name__ == "__main__":
    main(prog_name="plugin-registry")
