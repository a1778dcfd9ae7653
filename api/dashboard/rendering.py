"""The pages' templates, and how their values are written; whatever a stranger named is escaped by the templates."""

from datetime import UTC, datetime
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.responses import Response

from api.dashboard.chart import chart
from api.dashboard.visitor import Visitor
from api.http.prefix import at
from api.live.monitor import Snapshot
from shared.registration import Registration, rfc3339
from shared.store.sessions import form_token
from shared.store.snapshot import StoreSnapshot

if TYPE_CHECKING:
    from jinja2 import Environment

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser hides the Origin of our own forms too
    "Cache-Control": "no-store",
}


@cache
def _templates() -> "Environment":
    """Return the templates. They are loaded for the first who looks: an api that nobody looks at needs none."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    made = Environment(
        loader=PackageLoader("api", "dashboard/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "at": at,
        "chart": chart,
        "path": lambda text: quote(text, safe=""),
        "query": urlencode,
        "size": size,
        "speed": _speed,
        "quiet_s": _quiet_s,
        "causes": _causes,
        "where_they_differ": where_they_differ,
    }
    return made


def source_of(name: str) -> str:
    """Return the file *name* beside the templates, as it is."""
    source, _filename, _fresh = _templates().loader.get_source(_templates(), name)  # type: ignore[union-attr]  # it has one
    return source


def live_part(seen: Snapshot | None, *, operator: bool) -> str:
    """Return the part of the operations page that changes, rendered once for all who look at the same time."""
    if seen is not None and operator in seen.rendered:
        return seen.rendered[operator]
    now = seen.store.taken_at if seen is not None else datetime.now(UTC)
    rendered = part("live.html", now=now, seen=seen, operator=operator)
    if seen is not None:
        seen.rendered[operator] = rendered
    return rendered


def part(template: str, *, now: datetime | None = None, **values: Any) -> str:
    """Return what *template* makes of *values*; how long ago a time was is told as of *now*."""
    as_of = now or datetime.now(UTC)
    return _templates().get_template(template).render(time=lambda moment: time(moment, as_of), **values)


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """Return the answer that *template* makes of *values*, with the headers of every page."""
    return Response(part(template, **values), status, headers=HEADERS, media_type="text/html")


def framed(
    template: str, who: Visitor | None, here: str, *, said: str = "", status: int = 200, **values: Any
) -> Response:
    """Return the page *template* within the frame that all have, for *who*; it is at *here*, a path of ours.

    Whoever did not sign in gets no proof for forms, and *who* is None.
    """
    return page(
        template,
        status=status,
        who=who,
        here=here,
        said=said,
        bad=status >= 400,
        operator=who is not None and who.operator,
        admin=who is not None and who.admin,
        form=form_token(who.secret) if who is not None else "",
        **values,
    )


def time(moment: datetime, now: datetime) -> Markup:
    """Return *moment* in UTC, for people and for programs, and how long before *now* it was."""
    return Markup('<time datetime="{}">{} UTC <span class="ago">{}</span></time>').format(
        rfc3339(moment), moment.strftime("%Y-%m-%d %H:%M:%S"), ago((now - moment).total_seconds())
    )


def ago(seconds: float) -> str:
    """Return how long ago *seconds* were, in one unit; of what is to come, in how long."""
    past = abs(seconds)
    for unit, length_s in (("day", 86_400), ("h", 3600), ("min", 60)):
        if past >= length_s:
            number = int(past // length_s)
            told = f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}"
            return f"{told} ago" if seconds > 0 else f"in {told}"
    return "just now" if seconds > -1 else "in a moment"


def where_they_differ(text: str, other: str) -> Markup:
    """Return *text* with the characters marked in which it differs from *other*."""
    pairs = [(each, each != (other[place] if place < len(other) else "")) for place, each in enumerate(text)]
    runs = ((differs, "".join(each for each, _ in run)) for differs, run in groupby(pairs, key=lambda pair: pair[1]))
    marked, as_it_is = Markup("<mark>{}</mark>"), Markup("{}")
    return Markup("").join((marked if differs else as_it_is).format(run) for differs, run in runs)


def size(number: int) -> str:
    """Return a *number* of bytes as people read it."""
    if number < 2**10:
        return f"{number} B"
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"


def _speed(download: Registration) -> str:
    """Return the average since the claim."""
    if download.claimed_at is None or download.progressed_at is None or not download.bytes_downloaded:
        return ""
    taken_s = max(0.001, (download.progressed_at - download.claimed_at).total_seconds())
    return f"{size(int(download.bytes_downloaded / taken_s))}/s"


def _quiet_s(snapshot: StoreSnapshot, download: Registration) -> float:
    return (snapshot.taken_at - (download.progressed_at or download.updated_at)).total_seconds()


def _causes(snapshot: StoreSnapshot) -> list[str]:
    return sorted({each.failure.cause for each in snapshot.failures if each.failure is not None})
