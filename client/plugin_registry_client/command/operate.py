"""`failures`, `retry` and `cancel`: acting on registrations from a shell."""

import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from plugin_registry_client.client import Client, registration_path
from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.queue import failure_line
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.errors import USAGE

_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.command()
@click.option("--cause", help="Only those that failed for this cause.")
@click.option("--since", help="Only those submitted since: 30m, 2h, 1d, or a moment such as 2026-01-15T08:00:00Z.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 200), help="At most this many.")
@json_option
def failures(cause: str | None, since: str | None, limit: int, json_wanted: bool) -> None:
    """List what failed or was rejected, newest first, with its cause and whose fault it is."""
    client = connected()
    query = {"cause": cause, "since": _moment(since) if since else None, "limit": limit}
    found: list[dict[str, Any]] = []
    for status in ("failed", "rejected"):
        found += client.connection.get("/api/v1/registrations", status=status, **query).document["items"]
    found = sorted(found, key=lambda each: str(each["id"]), reverse=True)[:limit]
    if json_wanted:
        say_json({"items": found})
        return
    for each in found:
        say(failure_line(each))
    if not found:
        say("Nothing failed.", err=True)


@click.command()
@click.argument("registration_id", required=False)
@click.option("--cause", help="Instead of one: all that failed for this cause.")
@click.option("--host", help="All that failed whose URL is of this host, with its port where the URL has one.")
@click.option("--name", help="All that failed under this name.")
@click.option("--since", default="24h", show_default=True, help="Only those submitted since: 30m, 2h, 90d, a moment.")
@click.option("--dry-run", is_flag=True, help="Say how many, and try none again.")
@click.option("--yes", is_flag=True, help="Do not ask, on a terminal, before many are tried again.")
@json_option
def retry(
    registration_id: str | None,
    cause: str | None,
    host: str | None,
    name: str | None,
    since: str,
    dry_run: bool,
    yes: bool,
    json_wanted: bool,
) -> None:
    """Try a failed, rejected or canceled registration again, as a new one; or all that failed alike."""
    many = {key: value for key, value in (("cause", cause), ("host", host), ("name", name)) if value is not None}
    if (registration_id is None) == (not many) or (registration_id is not None and dry_run):
        raise Refusal("Give either a registration's id, or --cause, --host or --name.", USAGE)
    client = connected()
    if many:
        _retry_all(client, many | {"since": _moment(since)}, dry_run=dry_run, ask=not yes, json_wanted=json_wanted)
        return
    answer = client.connection.post(f"{registration_path(str(registration_id))}/retry")
    if json_wanted:
        say_json(answer.document)
    elif answer.status == 200:
        say(f"{answer.document['name']} {answer.document['version']} is registered by now.")
    else:
        say(str(answer.document["id"]))


def _retry_all(client: Client, which: Mapping[str, str], *, dry_run: bool, ask: bool, json_wanted: bool) -> None:
    """Say how many *which* names, and have them tried again unless that was all that was wanted."""
    counted = _each_page(client, which, dry_run=True)
    if dry_run or not counted["matching"]:
        if json_wanted:
            say_json(counted)
        else:
            say(f"{counted['matching']} would be tried again.")
        return
    if ask and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm(f"Try {counted['matching']} again?", abort=True, err=True)
    else:
        say(f"{counted['matching']} are to be tried again ...", err=True)
    total = _each_page(client, which, dry_run=False)
    if json_wanted:
        say_json(total)
    else:
        say(
            f"{len(total['retried'])} are tried again; {total['joined']} were in flight already, "
            f"{total['standing']} are registered by now."
        )


def _each_page(client: Client, which: Mapping[str, str], *, dry_run: bool) -> dict[str, Any]:
    """Return what became of all pages together."""
    total: dict[str, Any] = {"matching": 0, "retried": [], "joined": 0, "standing": 0}
    cursor = None
    while True:
        query = {**which, "limit": 200, "cursor": cursor, "dryRun": "true" if dry_run else None}
        page = client.connection.post("/api/v1/registrations/retry", **query).document
        for key in total:
            total[key] += page[key]
        cursor = page["nextCursor"]
        if cursor is None:
            return total
        if not dry_run:
            say(f"{len(total['retried'])} are tried again so far ...", err=True)


@click.command()
@click.argument("registration_id")
@json_option
def cancel(registration_id: str, json_wanted: bool) -> None:
    """Cancel a registration that is queued or being verified; its download stops within about a second."""
    found = connected().cancel(registration_id).document
    if json_wanted:
        say_json(found)
    else:
        say(f"{found['name']} {found['version']} is {found['status']}.")


def _moment(since: str) -> str:
    """Return the moment that *since* means, for the API."""
    try:
        if found := _AGO.fullmatch(since):
            ago = timedelta(**{_UNITS[found[2]]: int(found[1])})
            return (datetime.now(UTC) - ago).isoformat()
        moment = datetime.fromisoformat(since)
        return (moment if moment.tzinfo else moment.astimezone()).isoformat()
    except (ValueError, OverflowError) as error:
        raise Refusal("--since takes 30m, 2h, 1d, or a moment such as 2026-01-15T08:00:00Z.", USAGE) from error
