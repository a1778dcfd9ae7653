"""The webhooks: where each leads, whether it goes well, and each of its deliveries, for whoever may operate."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dashboard.acts import SAID
from api.dashboard.rendering import framed
from api.dashboard.session import here_of, sign_in_page
from api.dashboard.visitor import Here, Someone, Visitor
from api.http.paging import PageQuery, a_page, known_id
from api.http.problems import Problem
from api.routes.webhooks import WebhookView, found

router = APIRouter(include_in_schema=False)

SHOWN = 50


@router.get("/webhooks")
async def webhooks(request: Request, services: Here, who: Someone, done: str = "") -> Response:
    """All of them."""
    if who is None:
        return sign_in_page(request)
    _require_operator(who)
    known = [WebhookView.of(each) for each in await services.ask(services.webhooks.all)]
    return framed("webhooks.html", who, "/webhooks", said=SAID.get(done, ""), webhooks=known)


@router.get("/webhooks/{webhook_id}")
async def webhook(
    request: Request, services: Here, who: Someone, webhook_id: str, done: str = "", cursor: str = ""
) -> Response:
    """One, with its deliveries, the newest first."""
    if who is None:
        return sign_in_page(request)
    _require_operator(who)
    hook: Any = WebhookView.of(found(await services.ask(services.webhooks.get, known_id(webhook_id))))
    query = PageQuery(limit=SHOWN, cursor=cursor or None)
    fetch = partial(services.webhooks.deliveries, hook.id)
    deliveries, more = await a_page(services.ask, fetch, query, "delivery")
    return framed(
        "webhook.html",
        who,
        here_of(request),
        said=SAID.get(done, ""),
        webhook=hook,
        deliveries=deliveries,
        more=more or "",
        begun=not cursor,
    )


def _require_operator(who: Visitor) -> None:
    if not who.operator:
        raise Problem("forbidden", "This page needs a token of scope operate.")
