"""Schemas that are small to send and dear to look at, by what makes them dear."""

from collections.abc import Callable

DRAFTS = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
]


def exponential(keyword: str, depth: int) -> dict[str, object]:
    """Return a schema in which each definition asks twice for the next."""
    last: dict[str, object] = {f"a{depth}": {}}
    twice = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2, keyword: False} for n in range(depth)}
    return {"$defs": twice | last, "$ref": "#/$defs/a0"}


def nested(wrap: Callable[[object], dict[str, object]], depth: int, leaf: dict[str, object]) -> dict[str, object]:
    """Return *leaf* in *depth* wrappings."""
    for _ in range(depth):
        leaf = wrap(leaf)
    return leaf


_WRAPPINGS: dict[str, Callable[[object], dict[str, object]]] = {
    "items": lambda inner: {"items": inner},
    "list of items": lambda inner: {"items": [inner]},
    "dependencies": lambda inner: {"dependencies": {"a": inner}},
    "anyOf": lambda inner: {"anyOf": [inner]},
}
_LEAVES: dict[str, dict[str, object]] = {
    "refused everywhere": {"allOf": [{"type": "strnig"}] * 3000},
    "refused at its end": {"allOf": [{"type": "string"}] * 2500 + [{"type": "strnig"}]},
    "lists in lists": {"items": [{"items": [{"type": "strnig"}]}] * 1300},
    "one long word": {"type": "x" * 55_000},
    "data": {"enum": [[n] for n in range(6500)], "type": "strnig"},
}
COSTLY: dict[str, dict[str, object]] = {
    "unevaluatedProperties, exponential": exponential("unevaluatedProperties", 60),
    "unevaluatedItems, exponential": exponential("unevaluatedItems", 60),
    "a cycle": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "2,000 patterns": {"allOf": [{"pattern": f"^.{{1,1000}}{n}"} for n in range(2000)]},
    "a pattern for gigabytes": {"pattern": "(((((a{50}){50}){50}){50}){50}){50}"},
    "ids below a long one": {
        "$id": "https://a.example/" + "b/" * 12_000,
        "allOf": [{"$id": f"{n}", "$ref": f"{n}"} for n in range(1200)],
    },
    "a long pointer": {"$ref": "#" + "/a" * 30_000},
    "many pointers": {"allOf": [{"$ref": f"#/allOf/{n}"} for n in range(2500)]},
    "nothing, often": {"allOf": [{}] * 15_000},
    **{
        f"{how}, {what}, {draft[-14:]}": {**nested(wrap, 99, leaf), "$schema": draft}
        for how, wrap in _WRAPPINGS.items()
        for what, leaf in _LEAVES.items()
        for draft in DRAFTS
    },
}
