"""The Prefer header (RFC 7240): how long a client would wait for the outcome."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

MAX_WAIT_S = 60
_PREFERENCE = re.compile(r'\s*(?P<name>[^\s=;,"]+)\s*(?:=\s*(?P<value>"[^"]*"|[^\s;,"]*))?[^,"]*(?:"[^"]*"[^,"]*)*')


@dataclass(frozen=True)
class Preference:
    """What was preferred and understood; preferences we do not know are ignored, as the RFC asks."""

    respond_async: bool = False
    wait: int | None = None

    @classmethod
    def parse(cls, headers: Iterable[str]) -> Self:
        """Return the preference in *headers*, all Prefer fields of a request; the first of a name counts."""
        found: dict[str, str] = {}
        for match in _PREFERENCE.finditer(",".join(headers)):
            found.setdefault(match["name"].lower(), (match["value"] or "").strip('"'))
        wait = found.get("wait", "")
        return cls(
            respond_async="respond-async" in found,
            wait=min(MAX_WAIT_S, int(wait[:9])) if wait.isascii() and wait.isdigit() else None,
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
