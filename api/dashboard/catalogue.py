"""The catalogue: the plugins that are registered, and each of them with how to have and check it."""

import re
import shlex
from dataclasses import dataclass
from typing import get_args

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dashboard.rendering import framed
from api.dashboard.session import here_of, sign_in_page
from api.dashboard.visitor import Here, Someone
from api.http.paging import known_id
from api.http.problems import Problem
from shared.fields import normalised
from shared.registration import Plugin, PluginType
from shared.store.catalogue import Order

router = APIRouter(include_in_schema=False)

SHOWN = 50
VERSIONS_SHOWN = 100
_HARMLESS_ENDING = re.compile(r"\.(?:tar\.[a-z0-9]{1,4}|[a-z0-9]{1,6})\Z", re.ASCII)
PLUGIN_TYPES = get_args(PluginType)


@dataclass(frozen=True)
class ByHand:
    """The lines with which somebody has an artifact and checks it without us."""

    fetch: str
    verify: str

    @classmethod
    def of(cls, plugin: Plugin, url: str) -> "ByHand":
        """Return those of *plugin*, whose artifact is at *url*."""
        # Called as we call it: the end of a URL is the submitter's, who must not choose what is overwritten.
        ending = _HARMLESS_ENDING.search(url.partition("?")[0])
        file = f"{normalised(plugin.name)}-{plugin.version}{ending[0] if ending else ''}"
        line = f"{plugin.checksum.removeprefix('sha256:')}  {file}"
        return cls(
            f"curl --fail --globoff --location --output {shlex.quote(file)} {shlex.quote(url)} &&",
            f"echo {shlex.quote(line)} | sha256sum --check",
        )


@router.get("/")
async def catalogue(
    request: Request,
    services: Here,
    who: Someone,
    q: str = "",
    type: str = "",  # noqa: A002  # the query's name
    order: str = "newest",
    after: str = "",
) -> Response:
    """Every plugin, by a part of its name, its type, the newest first or by name."""
    if who is None and not services.settings.catalogue_open:
        return sign_in_page(request)
    part, plugin_type = q.replace("\0", "")[:100], type if type in PLUGIN_TYPES else ""
    by: Order = "name" if order == "name" else "newest"
    behind = known_id(after) if after else None
    ask = services.ask if who is not None else services.ask_for_strangers
    found = await ask(
        lambda: services.catalogue.page(limit=SHOWN + 1, part=part, plugin_type=plugin_type, order=by, after=behind)
    )
    shown = found[:SHOWN]
    return framed(
        "catalogue.html",
        who,
        here_of(request),
        plugins=shown,
        number=await ask(services.catalogue.number),
        asked={"q": part, "type": plugin_type, "order": by},
        more=shown[-1].id if len(found) > SHOWN else "",
        begun=not after,
        types=PLUGIN_TYPES,
    )


@router.get("/plugins/{plugin_id}")
async def plugin(request: Request, services: Here, who: Someone, plugin_id: str) -> Response:
    """One plugin: its fields, its other versions, when what was seen of it, and how to check it by hand."""
    if who is None and not services.settings.catalogue_open:
        return sign_in_page(request)
    found = await services.ask(services.store.plugin, known_id(plugin_id))
    if found is None:
        raise Problem("not-found", "There is no plugin of this id.")
    versions = await services.ask(lambda: services.store.plugins(limit=VERSIONS_SHOWN, filters={"name": found.name}))
    registration = await services.ask(services.store.registration_of_plugin, found.id) if who is not None else None
    attempts = await services.ask(services.store.attempts, registration) if registration is not None else []
    url = found.artifact_url if who is not None else found.artifact_url.partition("?")[0]
    return framed(
        "plugin.html",
        who,
        here_of(request),
        plugin=found,
        url=url,
        by_hand=ByHand.of(found, url),
        versions=versions,
        most=VERSIONS_SHOWN,
        registration=registration,
        attempts=attempts,
    )
