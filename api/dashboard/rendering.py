"""The page's templates, and how its values are written; whatever a stranger named is escaped by the templates."""

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from starlette.responses import Response

from api.dashboard.chart import chart
from api.http.prefix import at
from api.live.monitor import Snapshot
from shared.registration import Registration, host_of, rfc3339
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
    made.globals["at"] = at
    return made


def source_of(name: str) -> str:
    """Return the file *name* beside the templates, as it is."""
    source, _filename, _fresh = _templates().loader.get_source(_templates(), name)  # type: ignore[union-attr]  # it has one
    return source


def live_part(seen: Snapshot | None, *, operator: bool) -> str:
    """Return the part of the page that changes, rendered once for all who look at the same time."""
    if seen is not None and operator in seen.rendered:
        return seen.rendered[operator]
    rendered = (
        _templates()
        .get_template("live.html")
        .render(
            seen=seen,
            operator=operator,
            time=time,
            size=_size,
            speed=_speed,
            host=_host,
            quiet_s=_quiet_s,
            causes=_causes,
            chart=chart,
        )
    )
    if seen is not None:
        seen.rendered[operator] = rendered
    return rendered


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """Return the answer that *template* makes of *values*, with the headers of every page."""
    rendered = _templates().get_template(template).render(**values)
    return Response(rendered, status, headers=HEADERS, media_type="text/html")


def time(moment: datetime) -> Markup:
    """Return *moment* in UTC, for people and for programs."""
    return Markup('<time datetime="{}">{}</time>').format(rfc3339(moment), moment.strftime("%b %d %H:%M:%S"))


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"


def _speed(download: Registration) -> str:
    """Return the average since the claim."""
    if download.claimed_at is None or download.progressed_at is None or not download.bytes_downloaded:
        return ""
    taken_s = max(0.001, (download.progressed_at - download.claimed_at).total_seconds())
    return f"{_size(int(download.bytes_downloaded / taken_s))}/s"


def _quiet_s(snapshot: StoreSnapshot, download: Registration) -> float:
    return (snapshot.taken_at - (download.progressed_at or download.updated_at)).total_seconds()


def _host(download: Registration) -> str:
    return host_of(download.submission.artifact_url)


def _causes(snapshot: StoreSnapshot) -> list[str]:
    return sorted({each.failure.cause for each in snapshot.failures if each.failure is not None})
