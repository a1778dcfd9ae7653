"""A page for every code and cause of a problem, at the address that is its `type` (RFC 9457 section 3.1.1)."""

import json
from html import escape

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.http.prefix import at
from api.http.problems import KINDS, Problem, documented
from shared.errors import RegistryError
from shared.explained import CODES_WITH_A_STATUS, Explained, causes_of, codes, explained

router = APIRouter(tags=["problems"])

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "public, max-age=3600",
    "Vary": "Accept",
}
_OF_ARTIFACTS = {each.code for each in RegistryError.__subclasses__()} | {
    each.code for kind in RegistryError.__subclasses__() for each in kind.__subclasses__()
}
_FAULTS = {
    "submitter": "The submitter's: what was declared, or what is behind the URL, is to be corrected.",
    "upstream": "The artifact's host's: what it sent or did not, its redirects included.",
    "registry": "The registry's: its operators are to mend it.",
}


@router.get(
    "/problems",
    operation_id="ListProblems",
    summary="Every kind of problem",
    response_class=Response,
    responses=documented("head-too-large", "too-many-requests"),
)
async def list_problems(request: Request) -> Response:
    """All codes, each with its causes."""
    found = [each for code in codes() if (each := explained(code)) is not None]
    return _page(
        request, "Problems", [("", "\n".join(at(f"/problems/{each.word}  {each.happened}") for each in found))]
    )


@router.get(
    "/problems/{word}",
    operation_id="ExplainProblem",
    summary="One code, or cause, explained",
    response_class=Response,
    responses=documented("not-found", "head-too-large", "too-many-requests"),
)
async def explain_problem(word: str, request: Request) -> Response:
    """What happened, whose fault it is, what to do, and an example: HTML for a browser, else text."""
    found = explained(word)
    if found is None:
        raise Problem("not-found", "There is no problem of this name: /problems lists all.")
    causes = [at(f"/problems/{each}") for each in causes_of(word)]
    if word in CODES_WITH_A_STATUS:
        causes.append(at("/problems/status-NNN, the status that the host answered"))
    return _page(request, word, _sections(found, causes))


def _sections(found: Explained, causes: list[str]) -> list[tuple[str, str]]:
    kind = KINDS[found.code]
    again = "It may be sent again as it is." if kind.retryable else "Sent again as it is, it fails again."
    whose = " Or: ".join(_FAULTS[each] for each in kind.faults)
    members = {"cause": found.word} if found.code in _OF_ARTIFACTS else None
    example = Problem(
        found.code, found.happened, fault=kind.faults[0], retryable=kind.retryable, members=members
    ).document
    sections = [
        ("What happened", found.happened),
        ("Whose fault it is", whose),
        ("What to do", f"{found.to_do} {again}"),
    ]
    if found.word != found.code:
        sections.append(("It is a cause of", at(f"/problems/{found.code}")))
    if causes:
        sections.append(("What may be behind it", "\n".join(causes)))
    return [*sections, ("An example", json.dumps(example, indent=2))]


def _page(request: Request, title: str, sections: list[tuple[str, str]]) -> Response:
    if "text/html" not in request.headers.get("Accept", ""):
        text = "\n\n".join(f"{heading}\n\n{text}".strip() for heading, text in [(title, ""), *sections])
        return Response(f"{text}\n", headers=_HEADERS, media_type="text/plain")
    body = "".join(f"<h2>{escape(heading)}</h2><pre>{_linked(text)}</pre>" for heading, text in sections)
    html = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        "<meta name=viewport content='width=device-width'>"
        "<style>body{font-family:sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
        "pre{white-space:pre-wrap;font:inherit}</style>"
        f"<h1>{escape(title)}</h1>{body}</html>"
    )
    return Response(html, headers=_HEADERS, media_type="text/html")


def _linked(text: str) -> str:
    """Return *text* for a page, with a link wherever a line begins with the address of another."""
    lines = []
    for line in text.split("\n"):
        address, space, rest = line.partition(" ")
        if address.startswith(at("/problems/")) and "NNN" not in address:
            line = f'<a href="{escape(address)}">{escape(address)}</a>{escape(space + rest)}'  # noqa: PLW2901
        else:
            line = escape(line)  # noqa: PLW2901
        lines.append(line)
    return "\n".join(lines)
