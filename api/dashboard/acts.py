"""What the pages' buttons do. An act on many, or one that cannot be taken back, is asked about first."""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dashboard.rendering import HEADERS, framed
from api.dashboard.session import back_of
from api.dashboard.visitor import Form, Here, Someone, Visitor, require_ours
from api.http.paging import MAX_NOTE_CHARACTERS, known_id
from api.http.prefix import at
from api.http.problems import Problem
from api.routes.alerts import HOUR_S, acknowledge, withdraw
from api.routes.operations import Retried, RetryQuery, cancel, retry, retry_page
from api.routes.registrations import known_registration
from api.routes.tokens import revoke
from api.routes.upstreams import known_upstream, pause, resume
from api.routes.webhooks import found, send_test, shown_url
from api.services import Services
from shared.characters import refuse_hidden
from shared.errors import StoreUnavailable
from shared.registration import Operator

router = APIRouter(include_in_schema=False)

RETRIED_AT_ONCE = 200
PAGES_RETRIED = 20
RETRIED_OVER = timedelta(hours=24)
"""What failed before that is for the command line, which takes a time."""
HOURS = ("1", "4", "12", "24")

SAID = {
    "retry": "It is tried again, as a new registration.",
    "cancel": "It is canceled.",
    "retry-many": "They are tried again, as new registrations.",
    "retry-more": "The newest 4,000 are tried again; `plugin-registry retry` takes all that there are.",
    "cancel-many": "They are canceled, as far as they had not ended.",
    "nothing": "There is nothing to try again: it is registered, or in flight, by now.",
    "pause": "Nothing new is fetched from there until somebody resumes it.",
    "resume": "It is fetched from again.",
    "acknowledge": "It wakes nobody for that long; it is still shown.",
    "withdraw": "It wakes people again.",
    "revoke": "It is revoked.",
    "test-webhook": "A test is sent; how it goes is told below.",
    "enable-webhook": "It is told again, of what was due meanwhile too.",
    "remove-webhook": "It is forgotten, and told nothing more.",
    "redeliver": "It is tried once more, now.",
}


@dataclass(frozen=True)
class Question:
    """What somebody is asked before *do* is done; *yes* is what the button says."""

    sentence: str
    do: str
    yes: str
    note: bool = False
    """Whether a word of theirs is kept with it."""
    for_hours: bool = False
    """Whether it is for a while."""
    ids: str = ""
    """The registrations that were ticked."""


@router.post("/operations/act")
async def act(services: Here, who: Someone, sent: Form) -> Response:
    """Do what a button says, or ask whether to, and show the page again that it was on."""
    back = back_of(sent)
    if who is None:
        return RedirectResponse(at("/operations"), 303, headers=HEADERS)
    require_ours(who, sent)
    what, _, which = sent.get("do", "").replace("\0", "").partition(":")
    needs, may = ("admin", who.admin) if what.endswith("revoke") else ("operate", who.operator)
    if not may:
        raise Problem("forbidden", f"This needs a token of scope {needs}.")
    try:
        if what.startswith("ask-"):
            asked = await _question(services, who, what.removeprefix("ask-"), which, sent)
            if asked is None:
                return framed("said.html", who, back, said=SAID["nothing"])
            return framed("question.html", who, back, asked=asked)
        done = await _do(services, who, what, which, sent)
    except Problem as problem:
        return framed("said.html", who, back, said=problem.document["detail"], status=problem.status)
    except StoreUnavailable as error:
        return framed("said.html", who, back, said=f"Not all of it is done. {error.detail}", status=503)
    place = "/webhooks" if done == "remove-webhook" else back  # of what is gone there is no page
    return RedirectResponse(at(_with_done(place, done)), 303, headers=HEADERS)


def _with_done(back: str, done: str) -> str:
    parts = urlsplit(back)
    kept = [each for each in parts.query.split("&") if each and not each.startswith("done=")]
    return f"{parts.path}?{'&'.join([*kept, f'done={done}'])}"


async def _do(services: Services, who: Visitor, what: str, which: str, sent: Form) -> str:
    """Do *what* to *which*; return the word for what to say of it, a key of `SAID`.

    Raises:
        Problem: it cannot be done.
    """
    token = who.token
    match what:
        case "cancel":
            await cancel(services, await known_registration(services, which, token), token)
        case "retry":
            return await _retry(services, who, [which], what)
        case "retry-many":
            return await _retry(services, who, _ticked(sent), what)
        case "retry-cause" | "retry-host":
            return await _retry_all(services, who, {what.removeprefix("retry-"): which})
        case "cancel-many":
            for each in _ticked(sent):
                with suppress(Problem):  # it has ended meanwhile, or is gone
                    await cancel(services, await known_registration(services, each, token), token)
        case _:
            await _do_to_no_registration(services, who, what, which, sent)
    return what


async def _do_to_no_registration(services: Services, who: Visitor, what: str, which: str, sent: Form) -> None:
    match what:
        case "pause":
            await pause(services, which, who.token, _note(sent))
        case "resume":
            await resume(services, which, who.token)
        case "acknowledge":
            hours = int(sent["hours"]) if sent.get("hours") in HOURS else 1
            await acknowledge(services, which, who.token, _note(sent), for_s=HOUR_S * hours)
        case "withdraw":
            await withdraw(services, which, who.token)
        case "revoke":
            await revoke(services, which, who.token)
        case "test-webhook" | "enable-webhook" | "remove-webhook" | "redeliver":
            await _do_to_a_webhook(services, who, what, which)
        case _:
            raise Problem("malformed-request", "There is no such button.")


async def _do_to_a_webhook(services: Services, who: Visitor, what: str, which: str) -> None:
    by, hooks = Operator(who.token.label, who.token.id), services.webhooks
    webhook_id, _, delivery_id = which.partition(":")
    webhook_id = known_id(webhook_id)
    match what:
        case "test-webhook":
            await send_test(services, webhook_id)
        case "enable-webhook":
            found(await services.ask(hooks.enable, webhook_id, by))
        case "remove-webhook":
            if not await services.ask(hooks.remove, webhook_id, by):
                found(None)
        case _:
            found(await services.ask(hooks.redeliver, webhook_id, known_id(delivery_id), by), "delivery")


async def _retry(services: Services, who: Visitor, ids: list[str], done: str) -> str:
    known = [await known_registration(services, each, who.token) for each in ids]
    outcomes = await retry(services, known, who.token)
    return done if any(getattr(each, "new", False) for each in outcomes) else "nothing"


async def _question(services: Services, who: Visitor, what: str, which: str, sent: Form) -> Question | None:
    """Return what to ask before *what* is done to *which*; None where there is nothing to do it to.

    Raises:
        Problem: there is no such act, or nothing that it could be done to.
    """
    do, ids = f"{what}:{which}", _ticked(sent)
    match what:
        case "retry-cause" | "retry-host":
            number = await _matching(services, who, {what.removeprefix("retry-"): which})
            where = f"for {which}" if what == "retry-cause" else f"whose host is {which}"
            said = f"{number} failed {where} in the last 24 hours."
            return Question(said, do, f"Try {number} again") if number else None
        case "retry-many" if ids:
            return Question(f"{_number(ids)} will be tried again.", do, f"Try {len(ids)} again", ids=" ".join(ids))
        case "cancel-many" if ids:
            said = f"{_number(ids)} will be canceled. Their downloads stop, and it cannot be undone."
            return Question(said, do, f"Cancel {len(ids)}", ids=" ".join(ids))
        case "retry-many" | "cancel-many":
            raise Problem("malformed-request", "Tick some registrations first.")
    return await _question_of_no_registration(services, what, which)


async def _question_of_no_registration(services: Services, what: str, which: str) -> Question:
    do = f"{what}:{which}"
    match what:
        case "pause":
            seen = await known_upstream(services, which)
            said = (
                f"Nothing new will be fetched from {seen.host} until somebody resumes it. {seen.in_flight} of its "
                "registrations are in flight: downloads go on to their end, and what waits keeps its attempts."
            )
            return Question(said, do, f"Pause {seen.host}", note=True)
        case "acknowledge":
            said = f"{which} will wake nobody for a while: not the page, nor `queue`, nor Prometheus."
            return Question(said, do, "Acknowledge it", note=True, for_hours=True)
        case "revoke":
            said = "Whoever has it is refused from the next request on, and it cannot be undone."
            return Question(f"The token {which} will be revoked. {said}", do, "Revoke it")
        case "remove-webhook":
            hook = found(await services.ask(services.webhooks.get, known_id(which)))
            return Question(
                f"{shown_url(hook)} will be told nothing more, and its deliveries are forgotten.", do, "Remove it"
            )
    raise Problem("malformed-request", "There is no such button.")


def _ticked(sent: Form) -> list[str]:
    return list(dict.fromkeys(sent.get("id", "").split()))[:RETRIED_AT_ONCE]


def _number(ids: list[str]) -> str:
    return "1 registration" if len(ids) == 1 else f"{len(ids)} registrations"


def _note(sent: Form) -> str:
    try:
        return refuse_hidden(sent.get("note", "").strip()[:MAX_NOTE_CHARACTERS])
    except ValueError as error:
        raise Problem("malformed-request", f"The note {error}.") from error


async def _retry_all(services: Services, who: Visitor, which: Mapping[str, str]) -> str:
    """Have all tried again that failed alike lately, page by page, but for a bounded number of pages."""
    tried = [each async for each in _pages(services, who, which, dry_run=False)]
    if tried and tried[-1].next_cursor is not None:
        return "retry-more"
    return "retry-many" if any(each.retried for each in tried) else "nothing"


async def _matching(services: Services, who: Visitor, which: Mapping[str, str]) -> int:
    return sum([each.matching async for each in _pages(services, who, which, dry_run=True)])


async def _pages(
    services: Services, who: Visitor, which: Mapping[str, Any], *, dry_run: bool
) -> AsyncIterator[Retried]:
    cursor, since = None, datetime.now(UTC) - RETRIED_OVER
    for _page_number in range(PAGES_RETRIED):
        try:
            query = RetryQuery(**which, limit=RETRIED_AT_ONCE, cursor=cursor, since=since, dry_run=dry_run)
        except ValidationError:
            return  # nothing fails for what is no cause
        tried = await retry_page(services, query, who.token)
        yield tried
        cursor = tried.next_cursor
        if cursor is None:
            return
