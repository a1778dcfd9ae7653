"""Whether a string is a JSON Schema that may be kept. Nothing is fetched and no pattern is ever run."""

from typing import NoReturn

import jsonschema_rs

from api.strict_json import loads_strictly

MAX_PATTERN_BYTES = 4 * 2**20
"""How large one compiled pattern may get: a short one can be built to fill all memory."""
MAX_PATTERNS = 32
"""How many may be compiled: near that size each takes tens of milliseconds."""


def fault_in_schema(text: str) -> str | None:
    """Return what is wrong with *text* as a JSON Schema, or None."""
    try:
        schema = loads_strictly(text)
    except ValueError as error:
        return f"is not valid JSON: {error}"
    if not isinstance(schema, dict | bool):
        return "must hold a JSON Schema, which is an object, true or false"
    if _patterns_in(schema) > MAX_PATTERNS:
        return f"holds more than {MAX_PATTERNS} patterns"
    try:
        jsonschema_rs.validator_for(
            schema,
            retriever=_refuse,
            pattern_options=jsonschema_rs.FancyRegexOptions(size_limit=MAX_PATTERN_BYTES),
        )
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        reason = getattr(error, "message", str(error)).splitlines()[0]
        if _REMOTE in reason:
            return "refers to another document: a $ref must stay within the schema, nothing is fetched"
        reason = reason if len(reason) <= 200 else f"{reason[:100]} ... {reason[-100:]}"
        return f"is not a JSON Schema: {reason}"
    return None


def _patterns_in(schema: object) -> int:
    """Return how many patterns *schema* may hold: rather too many than too few, for data may look like one."""
    count, unseen = 0, [schema]
    while unseen:
        part = unseen.pop()
        if isinstance(part, dict):
            by_name = part.get("patternProperties")
            count += ("pattern" in part) + (len(by_name) if isinstance(by_name, dict) else 0)
            unseen += part.values()
        elif isinstance(part, list):
            unseen += part
    return count


_REMOTE = "not present in a registry"


def _refuse(_uri: str) -> NoReturn:
    raise ValueError("references to other documents are not followed")
