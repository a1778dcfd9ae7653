"""JSON that every parser reads alike: no duplicate names, no NaN, no bottomless nesting."""

import json
from collections.abc import Iterable
from typing import Any


def loads_strictly(text: str) -> Any:
    """Return *text* decoded as JSON that every parser reads alike.

    Raises:
        ValueError: it is not; the message says why.
    """
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_duplicates(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    decoded: dict[str, object] = {}
    for name, value in pairs:
        if name in decoded:
            raise ValueError(f"the name {name[:40]!r} occurs twice in one object")
        decoded[name] = value
    return decoded


def _no_constants(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
