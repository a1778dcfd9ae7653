"""The Prefer header (RFC 7240): how long a client would wait for the outcome."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MAX_WAIT_S = 60
PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "RFC 7240: `respond-async` answers at once, `wait=N` waits N seconds at most (60)",
    "examples": {"async": {"value": "respond-async"}, "wait": {"value": "wait=10"}},
}
"""The header, as OpenAPI describes it."""
MAX_CHARACTERS = 1000
"""How much of the header is looked at; what is said after that is not understood, which the RFC allows."""
# Each has one way to match, by possessive quantifiers. A string that is not closed goes on to the end.
_PREFERENCES = re.compile(r'(?:[^,"]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
_NAME_AND_VALUE = re.compile(r'([^\s=;,"]++)\s*+(?:=\s*+("(?:[^"\\]++|\\.)*+"|[^\s;,"]*+))?+\s*+(?:;|\Z)', re.DOTALL)


@dataclass(frozen=True)
class Preference:
    """What was preferred and understood; preferences we do not know are ignored, as the RFC asks."""

    respond_async: bool = False
    wait: int | None = None

    @classmethod
    def parse(cls, headers: Iterable[str]) -> Self:
        """Return the preference in *headers*, all Prefer fields of a request; the first of a name counts."""
        found: dict[str, str] = {}
        for preference in _PREFERENCES.findall(",".join(headers)[:MAX_CHARACTERS]):
            if match := _NAME_AND_VALUE.match(preference.strip()):
                found.setdefault(match[1].lower(), (match[2] or "").strip('"'))
        wait = found.get("wait", "")
        return cls(
            respond_async="respond-async" in found,
            wait=min(MAX_WAIT_S, int(wait)) if wait.isascii() and wait.isdigit() else None,
        )

    def wait_s(self, default_s: float) -> float:
        """Return how long to hold the answer back: with both preferences, for the time given and then no longer."""
        if self.wait is not None:
            return self.wait
        return 0 if self.respond_async else default_s

    @property
    def applied(self) -> dict[str, str]:
        """The header that tells what was honoured, if anything was asked."""
        words = ["respond-async"] * self.respond_async
        words += [f"wait={self.wait}"] if self.wait is not None else []
        return {"Preference-Applied": ", ".join(words)} if words else {}
