"""The actions: who did what, for the page and as CSV (RFC 4180) for a spreadsheet or an audit."""

import csv
import io
from functools import partial

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from api.dashboard.rendering import HEADERS, framed
from api.dashboard.session import here_of, sign_in_page
from api.dashboard.visitor import Here, Someone
from api.http.paging import a_page
from api.http.problems import Problem
from api.routes.operations import KINDS_OF_ACTIONS, ActionQuery
from shared.registration import rfc3339

router = APIRouter(include_in_schema=False)

SHOWN = 50
IN_A_FILE = 10_000
COLUMNS = ("at", "by", "what", "registration", "became", "subject", "note", "id")


@router.get("/actions")
async def actions(
    request: Request, services: Here, who: Someone, what: str = "", by: str = "", subject: str = "", cursor: str = ""
) -> Response:
    """What was done, newest first, by kind, by whom, to what."""
    if who is None:
        return sign_in_page(request)
    query, said = _query(what, by, subject, cursor)
    shown, more = await a_page(services.ask, partial(services.actions.list, filters=query.filters), query, "action")
    return framed(
        "actions.html",
        who,
        here_of(request),
        said=said,
        actions=shown,
        asked={"what": what, "by": by, "subject": subject},
        more=more or "",
        begun=not cursor,
        kinds=KINDS_OF_ACTIONS,
    )


@router.get("/actions.csv")
async def as_csv(
    request: Request, services: Here, who: Someone, what: str = "", by: str = "", subject: str = ""
) -> Response:
    """The newest ten thousand that the filters leave."""
    if who is None:
        return sign_in_page(request)
    query, said = _query(what, by, subject, "")
    if said:
        raise Problem("malformed-request", said)
    found = await services.ask(lambda: services.actions.list(limit=IN_A_FILE, filters=query.filters))
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(COLUMNS)
    for each in found:
        row = (each.by, each.what, each.registration_id, each.became, each.subject, each.note, each.id)
        writer.writerow([rfc3339(each.at), *(_plain(text or "") for text in row)])
    headers = HEADERS | {"Content-Disposition": 'attachment; filename="actions.csv"'}
    return Response(lines.getvalue(), headers=headers, media_type="text/csv")


def _plain(text: str) -> str:
    """Return *text* so that no spreadsheet takes it for a formula (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _query(what: str, by: str, subject: str, cursor: str) -> tuple[ActionQuery, str]:
    """Return what is asked for, and what is wrong with that."""
    try:
        given = {"what": what or None, "by": by or None, "subject": subject or None, "cursor": cursor or None}
        return ActionQuery.model_validate({"limit": SHOWN, **given}), ""
    except ValidationError:
        return ActionQuery(limit=SHOWN), "These filters can match nothing: see how they are written."
