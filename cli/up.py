"""`up`: the whole registry on this machine, until told to stop."""

import shlex
from pathlib import Path

import click
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say
from plugin_registry_client.errors import USAGE

from cli.embedded import curl_example, embedded_registry, end_on_sigterm, run_until_told
from shared.settings import BadSettings, read_settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder (default: REGISTRY_STATE_DIR).")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Worker processes.")
def up(host: str, port: int, state: Path | None, workers: int) -> None:
    """Run the whole registry on this machine until Ctrl-C."""
    try:
        folder = read_settings(**({"state_dir": state} if state else {})).state_dir
    except BadSettings as error:
        raise Refusal(f"{error}.", USAGE) from error
    end_on_sigterm()
    with embedded_registry(folder, host=host, port=port, workers=workers) as (address, opened, supervisor):
        bearer = f'-H "Authorization: Bearer $(cat {shlex.quote(str(opened.token_file))})"'
        say(f"Plugin registry at {address}  (API documentation: {address}/docs)")
        say(f"State in {opened.path}, a token for everything in {opened.token_file}", "")
        say("List what is registered:", f"  curl {address}/api/v1/plugins {bearer}", "")
        say("Register a plugin:", f"  {curl_example(address, opened.token_file)}", "")
        say("Ctrl-C stops everything.")
        run_until_told(supervisor)
        say("Stopping ...", err=True)
