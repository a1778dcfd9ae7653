"""JSON that every parser reads alike: no duplicate names, no NaN, no bottomless nesting."""

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def loads_strictly(text: str) -> Any:
    """Return *text* decoded as JSON that every parser reads alike.

    Raises:
        ValueError: it is not; the message says why.
    """
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    decoded: dict[str, object] = {}
    for name, value in pairs:
        if not name.isascii() and _SURROGATE.search(name):
            raise ValueError("a name holds a lone surrogate")
        if name in decoded:
            raise ValueError(f"the name {name[:40]!r} occurs twice in one object")
        decoded[name] = value
    return decoded


def _finite(number: str) -> float:
    if not isfinite(value := float(number)):
        raise ValueError(f"the number {number[:40]} is too large")
    return value


def _no_constants(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
