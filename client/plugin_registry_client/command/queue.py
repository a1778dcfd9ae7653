"""`queue`: what is going on, in a terminal; the same truth as the operations page and the metrics."""

import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import click

from plugin_registry_client.client import Client
from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.terminal import say, say_json, screen
from plugin_registry_client.errors import ALERTS, RegistryInTrouble, Unreachable

EVERY_S = 1.0
DOWNLOADS_SHOWN = 10
FAILURES_SHOWN = 5


@click.command()
@click.option("--watch", is_flag=True, help="Show it on the whole screen, every second anew, until Ctrl-C.")
@json_option
def queue(watch: bool, json_wanted: bool) -> None:
    """Show whether work flows, what waits, what fails and whose fault it is, and which workers live.

    Exit status: 0 all is well, 8 something is wrong, 4 not authorised, 7 server unreachable.
    """
    client = connected()
    if watch:
        _watch(client, json_wanted=json_wanted)
        return
    seen = _snapshot(client)
    if json_wanted:
        say_json(seen)
    else:
        say(*_lines(seen))
    if any(not each["acknowledged"] for each in seen["alerts"]):
        raise click.exceptions.Exit(ALERTS)


def _watch(client: Client, *, json_wanted: bool) -> None:
    """Show the snapshot until Ctrl-C, through absences of the registry; as JSON, in one line each."""
    if json_wanted:
        while True:
            if (seen := _seen(client)) is not None:
                say_json(seen, indent=None)
            time.sleep(EVERY_S)
    with screen() as show:
        while True:
            seen = _seen(client, show)
            if seen is not None:
                show(_lines(seen))
            time.sleep(EVERY_S)


def _seen(client: Client, show: Callable[[Sequence[str]], None] | None = None) -> dict[str, Any] | None:
    """Return the snapshot; None where the registry is not there for the moment, which is said."""
    try:
        return _snapshot(client)
    except (Unreachable, RegistryInTrouble) as error:
        if show is None:
            say(f"plugin-registry: {error}", err=True)
        else:
            show([str(error)])
        return None


def _snapshot(client: Client) -> dict[str, Any]:
    return client.connection.get("/api/v1/snapshot").document


def _lines(seen: dict[str, Any]) -> list[str]:
    number = seen["registrations"]
    oldest = f", the oldest due for {seen['oldestDueS']:.0f} s" if seen["oldestDueS"] is not None else ""
    messages = (
        f"the broker is away ({seen['brokerReason']})"
        if seen["messagesWaiting"] is None
        else f"{seen['messagesWaiting']} messages waiting"
    )
    lines = [_alert(each) for each in seen["alerts"]] or ["All is well."]
    lines += [f"- {each}" for each in seen["notes"]]
    final = ", ".join(f"{number[status]} {status}" for status in ("registered", "rejected", "failed", "canceled"))
    lines += [
        "",
        f"queued     {number['queued']}{oldest}; {messages}",
        f"verifying  {number['verifying']}",
        f"final      {final}; {seen['settledASecond']:.1f} a second lately",
    ]
    lines += _table("workers", [_worker(each) for each in seen["workers"]])
    lines += _table("downloads, the oldest first", [_download(each) for each in seen["downloads"][:DOWNLOADS_SHOWN]])
    lines += _table("worst upstreams", [_upstream(each) for each in seen["upstreams"]])
    lines += _table("latest failures", [failure_line(each) for each in seen["failures"][:FAILURES_SHOWN]])
    return lines


def _alert(alert: dict[str, Any]) -> str:
    text = f"{alert['severity']}: {alert['sentence']} {alert['toDo']}"
    known = alert["acknowledged"]
    if known is None:
        return f"! {text}"
    return f"~ {text} Acknowledged by {known['by']} until {known['until']}: {known['note']}"


def _table(title: str, rows: list[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {row}" for row in rows)] if rows else []


def _worker(worker: dict[str, Any]) -> str:
    state = (
        f"holds {worker['holding']} of {worker['maxDownloads']}"
        if worker["alive"]
        else f"gone since {worker['seenAt']}"
    )
    return f"{worker['id']}  {state}"


def _download(download: dict[str, Any]) -> str:
    done, total = download["bytesDownloaded"] / 2**20, download["artifactBytes"]
    size = f"{done:.1f} of {total / 2**20:.1f} MiB" if total else f"{done:.1f} MiB"
    host = urlsplit(download["artifactUrl"]).netloc
    return f"{download['name']} {download['version']}  {size}  {host}  {download['id']}"


def _upstream(upstream: dict[str, Any]) -> str:
    took = f", {upstream['verifyingS']:.1f} s each" if upstream["verifyingS"] is not None else ""
    return (
        f"{upstream['host']}  {upstream['failed']} of {upstream['settled']} failed{took}; "
        f"{upstream['downloading']} downloading, {upstream['stalled']} stalled"
    )


def failure_line(registration: dict[str, Any]) -> str:
    """Return a failed registration in one line: what, why, whose fault."""
    problem = registration["problem"]
    return (
        f"{registration['updatedAt']}  {registration['name']} {registration['version']}  "
        f"{problem.get('cause', problem['code'])} (at fault: {problem['fault']})  {registration['id']}"
    )
