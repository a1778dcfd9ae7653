"""`login` and `logout`: registries by name, kept in a file of this user's."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from plugin_registry_client.client import Client
from plugin_registry_client.command.asked import asked, json_option
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.connection import parsed_url
from plugin_registry_client.errors import USAGE, NoToken
from plugin_registry_client.settings import MAX_SECRET_BYTES, Config, Known

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@click.command()
@click.argument("url")
@click.option("--name", help="What to call it, for --registry; its host, if left out.")
@click.option("--default", "default", is_flag=True, help="Mean it where none is named. The first is meant anyway.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificates, in PEM form, to trust besides those of this machine.",
)
@json_option
def login(url: str, name: str | None, default: bool, ca_file: Path | None, json_wanted: bool) -> None:
    """Keep the registry at URL and a token for it, which is read from stdin and tried first."""
    url = parsed_url(url)
    named = name is not None
    name = name or str(urlsplit(url).hostname)
    config = Config.of(os.environ)
    if not named and name in config.names and config.name_of(url) != name:
        raise Refusal(f"Another registry is kept as {name}: give this one a --name.", USAGE)
    if _NAME.fullmatch(name) is None:
        raise Refusal("--name may hold ASCII letters, digits, '.', '_' and '-'.", USAGE)
    token = _token()
    client = asked().client = Client(url, token, ca_file=ca_file)
    known = client.token()
    config.keep(name, Known(url, token, client.connection.ca_file), default=default)
    meant = config.default == name
    if json_wanted:
        say_json({"name": name, "url": url, "default": meant, "token": known.document})
        return
    until = f", valid until {known.document['expiresAt']}" if known.document["expiresAt"] else ""
    names = f", for plugins named {', '.join(known.names)}" if known.names else ""
    say(f"Logged in to {url} with the token {known.id} ({known.label}): {', '.join(known.scopes)}{names}{until}.")
    say(f"Kept as {name} in {config.path}; {'it is meant where none is named' if meant else f'--registry {name}'}.")


@click.command()
@click.argument("name", required=False)
@json_option
def logout(name: str | None, json_wanted: bool) -> None:
    """Forget the registry called NAME, or the default one. Its token stays valid until it is revoked."""
    config = Config.of(os.environ)
    name = name or config.default
    if name is None:
        raise Refusal("No registry is kept.", USAGE)
    config.forget(name)
    if json_wanted:
        say_json({"name": name, "default": config.default})
    else:
        say(f"{name} is forgotten. Its token is valid still: `token revoke` ends that.")


def _token() -> str:
    """Return the token that somebody types, unseen, or that is piped in."""
    if sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    else:
        token = sys.stdin.read(MAX_SECRET_BYTES)
    token = str(token).strip()
    if not token:
        raise NoToken("No token came on stdin: plugin-registry login URL < FILE")
    return token
