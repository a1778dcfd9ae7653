"""`pause`, `resume`, `acknowledge`: what somebody on call does who knows what is wrong."""

import re
from collections.abc import Mapping
from typing import Any

import click

from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.connection import segment
from plugin_registry_client.errors import USAGE

_DURATION = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


@click.command()
@click.argument("host")
@click.option("--note", default="", help="Why, in your words: shown to all who operate.")
@json_option
def pause(host: str, note: str, json_wanted: bool) -> None:
    """Fetch nothing new from HOST until it is resumed; what is under way there goes on to its end."""
    answer = connected().connection.post(f"{_upstream(host)}/pause", note=note or None)
    _tell(answer.document, json_wanted=json_wanted)


@click.command()
@click.argument("host")
@json_option
def resume(host: str, json_wanted: bool) -> None:
    """Fetch from HOST again, which was paused."""
    _tell(connected().connection.post(f"{_upstream(host)}/resume").document, json_wanted=json_wanted)


@click.command()
@click.argument("alert")
@click.option("--for", "lasting", default="1h", show_default=True, help="For how long: 30m, 2h, 3d.")
@click.option("--note", default="", help="What you know of it: shown to all who operate.")
@click.option("--withdraw", is_flag=True, help="Have it wake people again.")
@json_option
def acknowledge(alert: str, lasting: str, note: str, withdraw: bool, json_wanted: bool) -> None:
    """Have ALERT, by its name as `queue` shows it, wake nobody for a while."""
    path = f"/api/v1/alerts/{segment(alert)}"
    if withdraw:
        answer = connected().connection.post(f"{path}/withdraw")
    else:
        answer = connected().connection.post(f"{path}/acknowledge", forS=_seconds(lasting), note=note or None)
    known = answer.document["acknowledged"]
    if json_wanted:
        say_json(answer.document)
    elif known is None:
        say(f"{answer.document['alert']} wakes people again.")
    else:
        say(f"{answer.document['alert']} wakes nobody until {known['until']}.")


def _tell(found: Mapping[str, Any], *, json_wanted: bool) -> None:
    if json_wanted:
        say_json(found)
        return
    paused = found["paused"]
    said = f"is paused, by {paused['by']}" if paused else "is not paused"
    say(f"{found['host']} {said}; {found['inFlight']} of its registrations are in flight.")


def _upstream(host: str) -> str:
    return f"/api/v1/upstreams/{segment(host)}"


def _seconds(lasting: str) -> int:
    found = _DURATION.fullmatch(lasting)
    if found is None:
        raise Refusal("--for takes 30m, 2h or 3d.", USAGE)
    return int(found[1]) * _SECONDS[found[2]]
