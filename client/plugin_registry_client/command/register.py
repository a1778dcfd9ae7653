"""`register`, `wait`, `status` and `list`: the registry from a shell or a CI job."""

import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from plugin_registry_client.client import Client, submission
from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.telling import Teller, stoppable, told_to_the_end
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.results import Plugin, Registration

_FIELDS = ("id", "name", "version", "pluginType", "artifactUrl", "checksum", "configSchema", "pluginRuntime")
_timeout = click.option(
    "--timeout", default=300.0, show_default=True, type=click.FloatRange(min=0), help="How long to wait, in seconds."
)
_quiet = click.option("--quiet", is_flag=True, help="Say nothing while it is verified; only how it ended.")


def _print_schema(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        say(*files("plugin_registry_client").joinpath("plugins.schema.json").read_text("utf-8").splitlines())
        context.exit()


@click.command()
@click.option("--name", help="Human-readable name of the plugin.")
@click.option("--version", help="SemVer 2.0.0 version of the plugin.")
@click.option("--type", "plugin_type", type=click.Choice(["log", "metric", "trace"]))
@click.option("--url", help="Where the registry can download the artifact.")
@click.option("--checksum", help="sha256: and 64 hex digits.")
@click.option(
    "--file",
    "artifact",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A local copy to compute the checksum from.",
)
@click.option(
    "--from",
    "declared",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Instead of one: all that a file (YAML, JSON, JSON lines), or a folder of them, declares; repeatable.",
)
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of such files, for editors, and end.",
)
@click.option(
    "--check-url/--no-check-url",
    default=False,
    help="First fetch the head of URL from here, and warn of what the registry would object to.",
)
@click.option("--runtime", help="Runtime environment the plugin needs.")
@click.option("--config-schema", help="JSON Schema of its configuration; @FILE reads a file.")
@click.option("--wait/--no-wait", default=True, help="Wait for the outcome (the default), or print the id and go.")
@_timeout
@_quiet
@click.option("--dry-run", is_flag=True, help="Check token, fields, egress and conflict; change nothing.")
@json_option
def register(  # noqa: PLR0917  # one for each option
    name: str | None,
    version: str | None,
    plugin_type: str | None,
    url: str | None,
    checksum: str | None,
    artifact: Path | None,
    declared: tuple[Path, ...],
    check_url: bool,
    runtime: str | None,
    config_schema: str | None,
    wait: bool,
    timeout: float,
    quiet: bool,
    dry_run: bool,
    json_wanted: bool,
) -> None:
    """Register a plugin: the registry downloads URL and compares it with the checksum.

    Exit status: 0 registered, 2 usage, 3 refused by verification, 4 not authorised, 5 still running
    when --timeout ran out, 6 conflict, 7 server unreachable or in trouble, 9 canceled by an operator,
    10 the artifact's host kept failing. Stopped by a signal, it says how to go on. Of many (--from),
    it is that of the first that failed; to run the same again is safe.
    """
    described = {"--name": name, "--version": version, "--type": plugin_type, "--url": url}
    if declared:
        alone = {**described, "--checksum": checksum, "--file": artifact}
        alone |= {"--runtime": runtime, "--config-schema": config_schema}
        _refuse_besides(alone, wait=wait)
        _register_many(declared, timeout=timeout, quiet=quiet, dry_run=dry_run, json_wanted=json_wanted)
        return
    for option, value in described.items():
        if value is None:
            raise click.UsageError(f"Missing option '{option}'; or name a file with --from.")
    from plugin_registry_client.command.declared import text_or_file, the_checksum  # noqa: PLC0415  # with YAML

    document = submission(
        str(name),
        str(version),
        str(plugin_type),
        str(url),
        the_checksum(checksum, artifact),
        text_or_file(config_schema or "{}"),
        runtime or "",
    )
    client = connected()
    with stoppable("to run the same again is safe"):
        _look_before(str(url), artifact, check_url=check_url)
        if dry_run:
            _dry_run(client, document, json_wanted=json_wanted)
            return
        submitted = client.submit(document)
        if isinstance(submitted, Plugin):
            _tell_plugin(submitted, json_wanted=json_wanted)
        elif wait:
            plugin = told_to_the_end(client, submitted, timeout_s=timeout, teller=Teller(quiet=quiet))
            _tell_plugin(plugin, json_wanted=json_wanted)
        elif json_wanted:
            say_json(submitted.document)
        else:
            say(submitted.id)


def _refuse_besides(alone: Mapping[str, object], *, wait: bool) -> None:
    given = [option for option, value in alone.items() if value is not None] + ([] if wait else ["--no-wait"])
    if given:
        raise click.UsageError(f"{given[0]} does not go with --from.")


def _look_before(url: str, artifact: Path | None, *, check_url: bool) -> None:
    if artifact is None and not check_url:
        return
    from plugin_registry_client.command.precheck import look_at_file, look_at_url  # noqa: PLC0415  # needed by few

    if artifact is not None:
        look_at_file(artifact)
    if check_url:
        look_at_url(url, artifact)


def _register_many(paths: tuple[Path, ...], *, timeout: float, quiet: bool, dry_run: bool, json_wanted: bool) -> None:
    from plugin_registry_client.command.declared import read_declared  # noqa: PLC0415  # needed by few
    from plugin_registry_client.command.many import entries_of, register_all, tell_all  # noqa: PLC0415

    entries = entries_of(read_declared(paths), quiet=quiet)
    register_all(connected(), entries, timeout_s=timeout, dry_run=dry_run, quiet=quiet)
    if json_wanted:
        say_json({"outcomes": [each.document for each in entries]})
    else:
        tell_all(entries)
    first = next((each.error for each in entries if each.error), None)
    if first is not None:
        raise click.exceptions.Exit(first.exit_status)


def _dry_run(client: Client, document: Mapping[str, str], *, json_wanted: bool) -> None:
    standing = client.dry_run(document)
    said = "Nothing stands in the way of this registration; nothing was changed."
    if standing is not None:
        _tell_plugin(standing, json_wanted=json_wanted)
    elif json_wanted:
        say_json({"outcome": "dry-run", "detail": said})
    else:
        say(said, err=True)


@click.command()
@click.argument("registration_id")
@_timeout
@_quiet
@json_option
def wait(registration_id: str, timeout: float, quiet: bool, json_wanted: bool) -> None:
    """Wait for a registration that was submitted before, and end as `register` does."""
    client = connected()
    began = time.monotonic()
    with stoppable("the registration goes on: to run the same again waits for it"):
        registration = client.found(registration_id, timeout_s=timeout)
        left_s = max(0.0, began + timeout - time.monotonic())
        plugin = told_to_the_end(client, registration, timeout_s=left_s, teller=Teller(quiet=quiet))
    _tell_plugin(plugin, json_wanted=json_wanted)


@click.command()
@click.argument("registration_id")
@click.option("--watch", is_flag=True, help="Tell each news of it, until it has ended or Ctrl-C.")
@json_option
def status(registration_id: str, watch: bool, json_wanted: bool) -> None:
    """Show where a registration stands."""
    client = connected()
    if watch:
        with stoppable("the registration goes on: to run the same again follows it"):
            registration = client.found(registration_id, timeout_s=float("inf"))
            registration = _watched(client, registration, json_wanted=json_wanted)
        if json_wanted:
            return
    else:
        registration = client.registration(registration_id)
    found = registration.document
    if json_wanted:
        say_json(found)
        return
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


def _watched(client: Client, registration: Registration, *, json_wanted: bool) -> Registration:
    """Tell each news of *registration*; return it once it has ended."""
    teller, told = Teller(quiet=json_wanted), None
    for seen in client.looks(registration, timeout_s=float("inf")):
        registration = seen
        teller.tell(seen)
        if json_wanted and seen != told:
            say_json(seen.document, indent=None)
            told = seen
    teller.over()
    return registration


@click.command("list")
@click.option("--name", help="Only this name, in any case and with any separators.")
@click.option("--version", help="Only this version.")
@click.option("--type", "plugin_type", type=click.Choice(["log", "metric", "trace"]))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 200), help="At most this many.")
@json_option
def list_plugins(
    name: str | None, version: str | None, plugin_type: str | None, limit: int, json_wanted: bool
) -> None:
    """List registered plugins, newest first."""
    found = (
        connected()
        .connection.get("/api/v1/plugins", name=name, version=version, pluginType=plugin_type, limit=limit)
        .document
    )
    if json_wanted:
        say_json(found)
        return
    for plugin in found["items"]:
        say(f"{plugin['name']} {plugin['version']}  {plugin['pluginType']}  {plugin['checksum']}")
    if found["nextCursor"]:
        say(f"There are more than {limit}: raise --limit or filter.", err=True)


def _tell_plugin(plugin: Plugin, *, json_wanted: bool) -> None:
    found = plugin.document
    if json_wanted:
        say_json(found)
        return
    say(f"Registered {found['name']} {found['version']}: downloaded, hashed, and it matches.")
    _print_fields({key: found[key] for key in (*_FIELDS, "registeredAt")})


def _print_fields(fields: Mapping[str, Any]) -> None:
    for label, value in fields.items():
        if value not in {None, ""}:
            say(f"  {label:<14} {value}")
