"""JSON Schemas whose danger is in how their parts refer to each other."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.fuzz.inputs import MAX_BYTES, Bent

Inner = Callable[[], object]
"""Makes what a keyword applies to its part."""

_DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
_MANY = ("allOf", "allOf", "anyOf", "oneOf", "prefixItems", "items")
_ONE = (
    *("not", "if", "then", "else", "items", "contains", "additionalItems", "unevaluatedItems"),
    *("additionalProperties", "unevaluatedProperties", "propertyNames", "contentSchema"),
)
_NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions")
_VALUES: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("type", ("object", ["string", "null"], "nothing", 1)),
    ("pattern", ("^(a+)+$", "(?=a)*", "\\p{L}{1000}", "((a{100}){100}){100}", "[", "(?<n>a)\\k<n>", "\\")),
    ("format", ("email", "regex", "uri-template", "none")),
    ("multipleOf", (1e-308, 0, -1, 10**400, 5e-324)),
    ("maximum", (1e308, 10**400, "1")),
    ("maxLength", (0, 2**64, -1, 1.5, 10**400)),
    ("required", (["a", "a"], [], "a")),
    ("enum", ([], [1, 1.0, True], [{"a": [10**30]}])),
    ("const", ({"a": [None]}, 10**400, "\ud800")),
    ("$id", ("a", "https://host.example/s", "#a", "urn:x:y", "http://[", "%zz")),
    ("$anchor", ("a0", "", 1)),
    ("$dynamicAnchor", ("a0", "a1")),
    ("$dynamicRef", ("#a0", "#/$defs/a1")),
    ("$recursiveRef", ("#",)),
    ("$recursiveAnchor", (True,)),
    ("$vocabulary", ({"https://host.example/v": True}, [])),
    ("$ref", ("#", "#/", "#a0", "https://host.example/s", "other.json", "#/$defs/~", "", "file:///etc/passwd")),
)


def schema(random: Random) -> bytes:
    """Return a JSON Schema of parts that refer to each other: to the next as a rule, so that doubling goes deep."""
    count = random.choice((1, 2, 3, 5, 10, 20, 30, 60))
    usual = [_keyword(random) for _ in range(random.choice((1, 1, 2, 3)))]
    parts: dict[str, object] = {}
    for number in range(count):
        inner = partial(_reference, random, number, count)
        keywords = usual if random.random() < 0.9 else [_keyword(random)]
        parts[f"a{number}"] = {name: value(inner) for name, value in keywords}
    whole: dict[str, object] = {"$ref": "#/$defs/a0", "$defs": parts}
    if random.random() < 0.5:
        whole["$schema"] = random.choice(_DRAFTS)
    if random.random() < 0.3:
        name, value = _keyword(random)
        whole[name] = value(lambda: {"$ref": "#/$defs/a0"})
    return json.dumps(whole).encode()


def _reference(random: Random, number: int, count: int) -> object:
    """Return what the part of this *number* applies: the next part, or any, or at the end something simple."""
    if random.random() < 0.03:
        return {"$ref": f"#/$defs/a{random.randrange(count)}"}
    return {"$ref": f"#/$defs/a{number + 1}"} if number + 1 < count else random.choice((True, {}, {"type": "string"}))


def _keyword(random: Random) -> tuple[str, Callable[[Inner], object]]:
    """Return a keyword, and how its value is made."""
    kind, width = random.random(), random.choice((1, 2, 2, 3, 40))
    if kind < 0.35:
        return random.choice(_MANY), lambda inner: [inner() for _ in range(width)]
    if kind < 0.55:
        return random.choice(_ONE), lambda inner: inner()
    if kind < 0.65:
        return random.choice(_ONE), lambda _inner: False
    if kind < 0.8:
        return random.choice(_NAMED), lambda inner: {f"{each}": inner() for each in range(width)}
    name, values = random.choice(_VALUES)
    return name, lambda _inner: random.choice(values)


@dataclass(frozen=True)
class BentSchema:
    """Makes schemas, most of them valid JSON."""

    bent: Bent

    @property
    def valid(self) -> tuple[bytes, ...]:
        return self.bent.valid

    def __call__(self, random: Random) -> bytes:
        """Return the next input."""
        if random.random() < 0.3:
            return self.bent(random)
        made = schema(random)
        return self.bent.bend(random, made) if random.random() < 0.3 else made[:MAX_BYTES]
