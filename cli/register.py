"""`register`, `status` and `list`: the registry from a shell or a CI job."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from cli.client import Answer, Client, client_from_environment, refusal_of
from cli.follow import Teller, follow
from cli.precheck import look_at_file, look_at_url
from cli.refusal import STILL_RUNNING, USAGE, Refusal
from cli.terminal import say, say_json

_FIELDS = ("id", "name", "version", "pluginType", "artifactUrl", "checksum", "configSchema", "pluginRuntime")


@click.command()
@click.option("--name", required=True, help="Human-readable name of the plugin.")
@click.option("--version", required=True, help="SemVer 2.0.0 version of the plugin.")
@click.option("--type", "plugin_type", required=True, type=click.Choice(["log", "metric", "trace"]))
@click.option("--url", required=True, help="Where the registry can download the artifact.")
@click.option("--checksum", help="sha256: and 64 hex digits.")
@click.option(
    "--file",
    "artifact",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A local copy to compute the checksum from.",
)
@click.option(
    "--check-url/--no-check-url",
    default=False,
    help="First fetch the head of URL from here, and warn of what the registry would object to.",
)
@click.option("--runtime", default="", help="Runtime environment the plugin needs.")
@click.option("--config-schema", default="{}", help="JSON Schema of its configuration; @FILE reads a file.")
@click.option("--wait/--no-wait", default=True, help="Wait for the outcome (the default), or print the id and go.")
@click.option(
    "--timeout", default=300.0, show_default=True, type=click.FloatRange(min=0), help="How long to wait, in seconds."
)
@click.option("--quiet", is_flag=True, help="Say nothing while it is verified; only how it ended.")
@click.option("--dry-run", is_flag=True, help="Check token, fields, egress and conflict; change nothing.")
@click.option("--json", "json_wanted", is_flag=True, help="Print the answer alone, as JSON, on stdout.")
def register(  # noqa: PLR0917  # one for each option
    name: str,
    version: str,
    plugin_type: str,
    url: str,
    checksum: str | None,
    artifact: Path | None,
    check_url: bool,
    runtime: str,
    config_schema: str,
    wait: bool,
    timeout: float,
    quiet: bool,
    dry_run: bool,
    json_wanted: bool,
) -> None:
    """Register a plugin: the registry downloads URL and compares it with the checksum.

    Exit status: 0 registered, 2 usage, 3 refused by verification, 4 not authorised, 5 still running
    when --timeout ran out, 6 conflict, 7 server unreachable or in trouble, 9 canceled by an operator,
    10 the artifact's host kept failing. Stopped by a signal, it says how to go on.
    """
    submission = {
        "name": name,
        "version": version,
        "pluginType": plugin_type,
        "artifactUrl": url,
        "checksum": _checksum(checksum, artifact),
        "configSchema": _text(config_schema),
        "pluginRuntime": runtime,
    }
    client = client_from_environment()
    if artifact is not None:
        look_at_file(artifact)
    if check_url:
        look_at_url(url, artifact)
    answer = client.submit(submission, dry_run=dry_run)
    if answer.status == 204:
        said = "Nothing stands in the way of this registration; nothing was changed."
        if json_wanted:
            say_json({"outcome": "dry-run", "detail": said})
        else:
            say(said, err=True)
        return
    if answer.status == 202:
        if not wait:
            if json_wanted:
                say_json(answer.document)
            else:
                say(str(answer.document["id"]))
            return
        _wait(client, answer.document, timeout, quiet=quiet, json_wanted=json_wanted)
        return
    _conclude(answer, json_wanted=json_wanted)


@click.command()
@click.argument("registration_id")
@click.option(
    "--timeout", default=300.0, show_default=True, type=click.FloatRange(min=0), help="How long to wait, in seconds."
)
@click.option("--quiet", is_flag=True, help="Say nothing while it is verified; only how it ended.")
@click.option("--json", "json_wanted", is_flag=True, help="Print the answer alone, as JSON, on stdout.")
def wait(registration_id: str, timeout: float, quiet: bool, json_wanted: bool) -> None:
    """Wait for a registration that was submitted before, and end as `register` does."""
    client = client_from_environment()
    answer = client.get(f"/api/v1/registrations/{quote(registration_id, safe='')}")
    if answer.status != 200:
        raise refusal_of(answer)
    _wait(client, answer.document, timeout, quiet=quiet, json_wanted=json_wanted)


def _wait(client: Client, registration: dict[str, Any], timeout_s: float, *, quiet: bool, json_wanted: bool) -> None:
    """Follow *registration*, and say how it ended, or that it has not."""
    answer = follow(client, registration, timeout_s=timeout_s, teller=Teller(quiet=quiet))
    if answer.status != 202:
        _conclude(answer, json_wanted=json_wanted)
        return
    if json_wanted:
        say_json(answer.document)
    raise Refusal(
        f"Still {answer.document['status']} after {timeout_s:g} s: "
        f"`plugin-registry wait {answer.document['id']}` goes on waiting.",
        STILL_RUNNING,
    )


@click.command()
@click.argument("registration_id")
@click.option("--json", "json_wanted", is_flag=True, help="Print the answer alone, as JSON, on stdout.")
def status(registration_id: str, json_wanted: bool) -> None:
    """Show where a registration stands."""
    answer = client_from_environment().get(f"/api/v1/registrations/{quote(registration_id, safe='')}")
    if answer.status != 200:
        raise refusal_of(answer)
    if json_wanted:
        say_json(answer.document)
        return
    found = answer.document
    say(f"{found['name']} {found['version']} is {found['status']}")
    total = f" of {found['artifactBytes']}" if found["artifactBytes"] is not None else ""
    _print_fields(
        {
            "id": found["id"],
            "attempts": found["attempts"],
            "downloaded": f"{found['bytesDownloaded']}{total} bytes",
            "created": found["createdAt"],
            "updated": found["updatedAt"],
            "next attempt": found["nextAttemptAt"],
            "plugin": found["pluginId"],
            "reason": (found["problem"] or {}).get("detail"),
        }
    )


@click.command("list")
@click.option("--name", help="Only this name, in any case and with any separators.")
@click.option("--version", help="Only this version.")
@click.option("--type", "plugin_type", type=click.Choice(["log", "metric", "trace"]))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 200), help="At most this many.")
@click.option("--json", "json_wanted", is_flag=True, help="Print the answer alone, as JSON, on stdout.")
def list_plugins(
    name: str | None, version: str | None, plugin_type: str | None, limit: int, json_wanted: bool
) -> None:
    """List registered plugins, newest first."""
    answer = client_from_environment().get(
        "/api/v1/plugins", name=name, version=version, pluginType=plugin_type, limit=limit
    )
    if answer.status != 200:
        raise refusal_of(answer)
    if json_wanted:
        say_json(answer.document)
        return
    for plugin in answer.document["items"]:
        say(f"{plugin['name']} {plugin['version']}  {plugin['pluginType']}  {plugin['checksum']}")
    if answer.document["nextCursor"]:
        say(f"There are more than {limit}: raise --limit or filter.", err=True)


def _conclude(answer: Answer, *, json_wanted: bool) -> None:
    if answer.status == 200:
        if json_wanted:
            say_json(answer.document)
            return
        plugin = answer.document
        say(f"Registered {plugin['name']} {plugin['version']}: downloaded, hashed, and it matches.")
        _print_fields({key: plugin[key] for key in (*_FIELDS, "registeredAt")})
        return
    if json_wanted:
        say_json(answer.document)
    raise refusal_of(answer)


def _checksum(checksum: str | None, artifact: Path | None) -> str:
    if (checksum is None) == (artifact is None):
        raise Refusal("Give either --checksum or --file.", USAGE)
    if artifact is None:
        return str(checksum)
    with artifact.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _text(value: str) -> str:
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"Cannot read {value[1:]}.", USAGE) from error


def _print_fields(fields: dict[str, Any]) -> None:
    for label, value in fields.items():
        if value not in {None, ""}:
            say(f"  {label:<14} {value}")
