"""The operations page's small chart: what settled, in bars of five minutes, as SVG."""

from collections import Counter
from datetime import datetime

from markupsafe import Markup

from shared.store.snapshot import MINUTES_SHOWN, StoreSnapshot

BAR_MINUTES = 5
_BARS = MINUTES_SHOWN // BAR_MINUTES
_WIDTH, _HEIGHT = 720, 100


def chart(snapshot: StoreSnapshot) -> Markup:
    """Return the bars of *snapshot*, oldest first, the newest at the right edge."""
    registered, failed = Counter[int](), Counter[int]()
    for minute in snapshot.minutes:
        bar = _BARS - 1 - _bars_ago(minute.begun_at, snapshot.taken_at)
        registered[bar] += minute.registered
        failed[bar] += minute.failed
    most = max((registered[bar] + failed[bar] for bar in range(_BARS)), default=0)
    width = _WIDTH / _BARS
    drawn = [
        _bar(bar * width, width, bottom, number, most, kind)
        for bar in range(_BARS)
        for kind, bottom, number in (("failed", 0, failed[bar]), ("registered", failed[bar], registered[bar]))
        if number
    ]
    words = (
        f"{sum(registered.values())} registered and {sum(failed.values())} failed or rejected in three hours, "
        f"at most {most} in {BAR_MINUTES} minutes"
    )
    return Markup(
        '<svg class="chart" role="img" viewBox="0 0 {w} {h}" preserveAspectRatio="none" aria-label="{words}">'
        '<line class="axis" x1="0" x2="{w}" y1="{h}" y2="{h}"></line>{bars}</svg><p class="quiet">{words}.</p>'
    ).format(w=_WIDTH, h=_HEIGHT, words=words, bars=Markup("").join(drawn))


def _bars_ago(begun_at: datetime, now: datetime) -> int:
    return int((now - begun_at).total_seconds() // (60 * BAR_MINUTES))


def _bar(x: float, width: float, bottom: int, number: int, most: int, kind: str) -> Markup:
    height = _HEIGHT * number / most
    y = _HEIGHT - _HEIGHT * bottom / most - height
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"></rect>').format(
        kind, x + 1, y, width - 2, height
    )
