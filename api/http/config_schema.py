"""Whether a string is a JSON Schema that may be kept. Nothing is fetched, compiled or run (invariant 14).

A stranger's schema of two kilobytes can take minutes and gigabytes to compile. So it is held against its draft's
meta-schema, which is ours and compiled already: that takes as long as the schema is. Whether it refers to anything
outside itself is looked up, not followed (decision 0020).
"""

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import unquote

from jsonschema_rs import ValidationError, meta

from api.http.strict_json import loads_strictly

MAX_CHARACTERS = 256 * 1024
"""So much is looked at in a moment, whatever bodies are let in."""
REMEMBERED, REMEMBERED_CHARACTERS = 512, 8 * 1024
"""How many schemas are remembered, and how long each may be: 16 MiB of them, were all of the rarest characters."""
MAX_DEPTH = 100
MAX_BLAMED = 1000
"""How many subschemas are looked at to say what is wrong."""

_OLDER = ("draft-04", "draft-06", "draft-07")
_NEWER = ("2019-09", "2020-12")
_DRAFTS = frozenset(
    [f"http://json-schema.org/{draft}/schema" for draft in _OLDER]
    + [f"https://json-schema.org/draft/{draft}/schema" for draft in _NEWER]
)
# Where a schema holds others: as a value, in a list, by name. Elsewhere is data, which may look like one.
_HOLDS_ONE = frozenset(
    {"additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"}
    | {"propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"}
)
_HOLDS_LIST = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_HOLDS_NAMED = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
_SAYING = {
    "$ref": "reference",
    "$dynamicRef": "reference",
    "$recursiveRef": "reference",
    "$anchor": "anchor",
    "$dynamicAnchor": "anchor",
    "$id": "id",
    "id": "id",
}

Json = dict[str, Any]


class _Fault(Exception):
    """What is wrong with the schema."""


def fault_in_schema(text: str) -> str | None:
    """Return what is wrong with *text* as a JSON Schema, or None; what was asked lately is remembered by its text."""
    return _remembered(text) if len(text) <= REMEMBERED_CHARACTERS else _fault_in(text)


@lru_cache(REMEMBERED)
def _remembered(text: str) -> str | None:
    return _fault_in(text)


def _fault_in(text: str) -> str | None:
    try:
        schema = _parsed(text)
        if isinstance(schema, dict):
            _check_keywords(schema)
            _check_references(schema)
    except _Fault as fault:
        return str(fault)
    return None


def _parsed(text: str) -> Json | bool:
    if len(text) > MAX_CHARACTERS:
        raise _Fault(f"has {len(text)} characters, and {MAX_CHARACTERS} are kept at most")
    try:
        schema = loads_strictly(text)
    except ValueError as error:
        raise _Fault(f"is not valid JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise _Fault("must hold a JSON Schema, which is an object, true or false")
    if _is_deep(schema):  # what checks it goes as deep, on the stack
        raise _Fault(f"is nested too deeply: more than {MAX_DEPTH} objects and lists in each other")
    try:
        json.dumps(schema, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Fault("holds a lone surrogate") from None
    return schema


def _is_deep(value: Json | bool) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_keywords(schema: Json) -> None:
    draft = schema.get("$schema", "")
    if isinstance(draft, str) and draft and draft.removesuffix("#") not in _DRAFTS:
        # Not asked about any further: to know it, it would be fetched.
        raise _Fault(f"is not a JSON Schema of a draft that is known here: {_shown(draft)}")
    try:
        fits = meta.is_valid(schema)
    except ValueError as error:
        raise _Fault(f"is not a JSON Schema: {_shown(str(error))}") from None
    if not fits:
        raise _Fault(f"is not a JSON Schema: {_blame(schema)}")


def _subschemas(schema: Json) -> Iterator[Json]:
    """Yield *schema* and every object in it that is a schema, the outer ones first."""
    unseen: list[Any] = [schema]
    while unseen:
        part = unseen.pop()
        if not isinstance(part, dict):
            continue
        yield part
        for key, value in part.items():
            if isinstance(value, dict):
                if key in _HOLDS_ONE:
                    unseen.append(value)
                elif key in _HOLDS_NAMED:
                    unseen += value.values()
            elif isinstance(value, list) and key in _HOLDS_LIST:
                unseen += value


def _blame(schema: Json) -> str:
    """Return what the meta-schema has against *schema*, of which it is known that there is something.

    Each subschema is asked about alone. The error about a whole one holds an account of everything below it, over
    and over: for 57 KB it took ten seconds.
    """
    for part in islice(_subschemas(schema), MAX_BLAMED):
        alone = {"$schema": schema.get("$schema", ""), **{key: _hollow(key, value) for key, value in part.items()}}
        if not alone["$schema"]:
            del alone["$schema"]
        try:
            meta.validate(alone)
        except ValidationError as error:
            return _shown(error.message)
    return "its meta-schema refuses it"


def _hollow(key: str, value: Any) -> Any:
    """Return *value*, the keyword *key*'s, with nothing in the schemas that it holds."""
    if key in _HOLDS_ONE and isinstance(value, dict):
        return {}
    if key in _HOLDS_LIST and isinstance(value, list):
        return [{} if isinstance(each, dict) else each for each in value]
    if key in _HOLDS_NAMED and isinstance(value, dict):
        return {name: {} if isinstance(each, dict) else each for name, each in value.items()}
    return value


def _check_references(schema: Json) -> None:
    """Make sure that no reference leads out of *schema*, or to nothing in it."""
    said = _said(schema)
    names = {name.partition("#")[0] for name in said["id"] if not name.startswith("#")}
    anchors = {"#", *said["id"], *(f"#{name}" for name in said["anchor"])}  # older drafts write an anchor as an id
    root = next((schema[key] for key in ("$id", "id") if isinstance(schema.get(key), str)), "")
    folder = root.rpartition("/")[0] + "/"
    bundled = len(names) > bool(root)  # then a pointer begins at the schema that it stands in
    for reference in sorted(said["reference"] - anchors):
        document, _, fragment = reference.partition("#")
        if not document:
            if not bundled and not _leads_somewhere(schema, fragment):
                raise _Fault(f"refers to what is not in it: {_shown(reference)}")
        elif names.isdisjoint((document, folder + document, document.removeprefix(folder))) and (
            document not in _DRAFTS
        ):
            raise _Fault("refers to another document: a $ref must stay within the schema, nothing is fetched")


def _said(schema: Json) -> dict[str, set[str]]:
    """Return what all subschemas say by the keywords that name and that refer."""
    said: dict[str, set[str]] = {"reference": set(), "anchor": set(), "id": set()}
    for part in _subschemas(schema):
        for key in part.keys() & _SAYING:
            if isinstance(value := part[key], str):
                said[_SAYING[key]].add(value)
    return said


def _leads_somewhere(schema: Json, pointer: str) -> bool:
    """Whether *pointer*, a fragment that is no anchor, is a JSON pointer to something in *schema* (RFC 6901)."""
    part: Any = schema
    first, *steps = unquote(pointer).split("/")
    for step in steps:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isascii() and name.isdigit() and int(name[:6]) < len(part):
            part = part[int(name[:6])]
        else:
            return False
    return not first


def _shown(text: str) -> str:
    """Return *text* on one line, with its middle left out where it is long."""
    line = " ".join(text[:100_000].split())
    return line if len(line) <= 200 else f"{line[:100]} ... {line[-100:]}"
