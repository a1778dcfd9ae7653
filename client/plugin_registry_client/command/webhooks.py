"""`webhook` and `events`: hearing what became of registrations, by being told or by reading on."""

from collections.abc import Mapping
from typing import Any

import click

from plugin_registry_client.client import Client
from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.telling import stoppable
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.connection import segment

TYPES = tuple(f"registration.{each}" for each in ("registered", "rejected", "failed", "canceled"))
_PATH = "/api/v1/webhooks"


@click.command()
@click.option(
    "--after", type=click.IntRange(min=0), help="Only events after this number; all that are kept, if left out."
)
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C; without --after, with that alone.")
@json_option
def events(after: int | None, follow: bool, json_wanted: bool) -> None:
    """Tell what became of registrations, the oldest first: a line each, with its number first."""
    client = connected()
    with stoppable("to run the same again with --after and the last number goes on"):
        for event in client.events(after) if follow else client.events_so_far(after):
            if json_wanted:
                say_json(event.document, indent=None)
                continue
            known = event.document["data"]
            why = f"  {known['cause'] or known['code']} (at fault: {known['fault']})" if known["code"] else ""
            say(f"{event.seq}  {event.document['timestamp']}  {event.type}  {known['name']} {known['version']}{why}")


@click.group()
def webhook() -> None:
    """Have URLs be told of events; this needs scope operate."""


@webhook.command()
@click.argument("url")
@click.option("--label", default="", help="Whose it is.")
@click.option(
    "--type", "types", multiple=True, type=click.Choice(TYPES), help="Only events of this type; repeatable."
)
@click.option("--names", multiple=True, help="Only of plugins named like this, such as 'nginx-*'; repeatable.")
@click.option("--no-secret", is_flag=True, help="Sign with the registry's own key alone (v1a): nothing can leak.")
@json_option
def add(  # one for each option
    url: str, label: str, types: tuple[str, ...], names: tuple[str, ...], no_secret: bool, json_wanted: bool
) -> None:
    """Have URL be told. Its secret is printed, this once, alone on stdout."""
    wanted: dict[str, Any] = {"url": url, "label": label, "secret": not no_secret}
    wanted |= {"types": [*types]} if types else {}
    wanted |= {"names": [*names]} if names else {}
    client = connected()
    _tell_new(client, client.connection.ask("POST", _PATH, document=wanted).document, json_wanted=json_wanted)


@webhook.command("list")
@json_option
def list_webhooks(json_wanted: bool) -> None:
    """Show every webhook, and whether it goes well."""
    found = connected().connection.get(_PATH).document
    if json_wanted:
        say_json(found)
        return
    for each in found["items"]:
        state = "well"
        if each["disabledAt"]:
            state = f"disabled since {each['disabledAt']}: {each['disabledWhy']}"
        elif each["failingSince"]:
            state = f"failing since {each['failingSince']}"
        say(f"{each['id']}  {each['url']}  {','.join(each['types']) or 'everything'}  {state}  {each['label']}")


@webhook.command()
@click.argument("webhook_id")
@click.option("--open", "open_only", is_flag=True, help="Only those that are not over.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 200), help="At most this many.")
@json_option
def deliveries(webhook_id: str, open_only: bool, limit: int, json_wanted: bool) -> None:
    """Show what became of telling a webhook, newest first."""
    path = f"{_PATH}/{segment(webhook_id)}/deliveries"
    found = connected().connection.get(path, limit=limit, open="true" if open_only else None).document
    if json_wanted:
        say_json(found)
        return
    for each in found["items"]:
        say(f"{each['id']}  {each['type']}  {each['eventId']}  {_state(each)}")


@webhook.command()
@click.argument("webhook_id")
@click.argument("delivery_id")
@json_option
def redeliver(webhook_id: str, delivery_id: str, json_wanted: bool) -> None:
    """Try one delivery once more, now."""
    path = f"{_PATH}/{segment(webhook_id)}/deliveries/{segment(delivery_id)}/redeliver"
    _tell(connected().connection.post(path).document, "It is tried once more.", json_wanted=json_wanted)


@webhook.command("test")
@click.argument("webhook_id")
@json_option
def send_test(webhook_id: str, json_wanted: bool) -> None:
    """Send a webhook something that says nothing; `deliveries` shows how it went."""
    found = connected().connection.post(f"{_PATH}/{segment(webhook_id)}/test").document
    _tell(
        found,
        f"Sent as {found['eventId']}: `webhook deliveries {webhook_id}` shows how it went.",
        json_wanted=json_wanted,
    )


@webhook.command()
@click.argument("webhook_id")
@json_option
def rotate(webhook_id: str, json_wanted: bool) -> None:
    """Give a webhook a new secret, which is printed; the old one is good for a day beside it."""
    client = connected()
    found = client.connection.post(f"{_PATH}/{segment(webhook_id)}/rotate").document
    _tell_new(client, found, json_wanted=json_wanted)


@webhook.command()
@click.argument("webhook_id")
@json_option
def enable(webhook_id: str, json_wanted: bool) -> None:
    """Have a webhook that was disabled be told again, of what was due meanwhile too."""
    found = connected().connection.post(f"{_PATH}/{segment(webhook_id)}/enable").document
    _tell(found, f"{found['url']} is told again.", json_wanted=json_wanted)


@webhook.command()
@click.argument("webhook_id")
@json_option
def remove(webhook_id: str, json_wanted: bool) -> None:
    """Have a webhook be told nothing more."""
    connected().connection.post(f"{_PATH}/{segment(webhook_id)}/remove")
    _tell({"id": webhook_id, "removed": True}, "It is told nothing more.", json_wanted=json_wanted)


def _tell(found: Mapping[str, Any], said: str, *, json_wanted: bool) -> None:
    if json_wanted:
        say_json(found)
    else:
        say(said)


def _tell_new(client: Client, found: Mapping[str, Any], *, json_wanted: bool) -> None:
    if json_wanted:
        say_json(found)
        return
    say(
        f"{found['id']} tells {found['url']}; `v1a` is checked with {client.url}/.well-known/plugin-registry-keys.",
        err=True,
    )
    if found["secret"]:
        say("Its secret, shown this once:", err=True)
        say(found["secret"])


def _state(delivery: Mapping[str, Any]) -> str:
    answered = f"{delivery['status'] or ''} {delivery['error'] or ''}".strip()
    if delivery["deliveredAt"]:
        return f"delivered {delivery['deliveredAt']}  {answered}"
    if delivery["dueAt"]:
        return f"due {delivery['dueAt']}, {delivery['failures']} failed  {answered}"
    return f"given up after {delivery['failures']} failed  {answered}"
