"""How much of an artifact there is, and how to ask for the rest."""

import re
from dataclasses import dataclass, replace
from typing import Self

from shared.errors import ArtifactTooLarge, BadResponse, Truncated
from worker.fetch.client import Answer
from worker.fetch.parser import BROKE_OFF, Head

_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")

_ANY_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


def is_partial(head: Head) -> bool:
    """Whether *head*, that of a 200, tells by a Content-Range that what follows is not the whole.

    On a 200 the field has no meaning (RFC 9110 section 14.4), and some hosts send one that covers the whole, in forms
    of their own; but there are others, which send the rest and say 200. What cannot be read says nothing.
    """
    found = _ANY_RANGE.search(head.value("content-range"))
    if found is None:
        return False
    total = head.length if found[3] == "*" else int(found[3])
    return int(found[1]) > 0 or (total is not None and int(found[2]) + 1 < total)


@dataclass(frozen=True)
class Part:
    """How much of an artifact there is, and how to ask for the rest (RFC 9110 sections 13.1.5 and 14.2)."""

    offset: int = 0
    total_bytes: int | None = None
    validator: str | None = None
    """A strong ETag: without one, two answers cannot be known to be of the same artifact."""

    @classmethod
    def begun_by(cls, answer: Answer, *, max_bytes: int) -> Self:
        """Return the part that *answer*, a 200, is the beginning of.

        Raises:
            BadResponse: its length is impossible, or it is a part by its own word.
            ArtifactTooLarge: its length is over *max_bytes*.
        """
        if is_partial(answer.head):
            raise BadResponse(
                "The artifact's host answered 200 and sent a part of the artifact, by its Content-Range.",
                cause="part-as-whole",
            )
        total_bytes = answer.head.length
        if total_bytes is not None and total_bytes > max_bytes:
            raise ArtifactTooLarge.over(max_bytes)
        etag = answer.header("ETag")
        return cls(0, total_bytes, etag if _STRONG_ETAG.fullmatch(etag) else None)

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the rest, if the artifact is still the same; nothing at the beginning."""
        if self.offset == 0 or self.validator is None:
            return {}
        return {"Range": f"bytes={self.offset}-", "If-Range": self.validator}

    def resumed_by(self, answer: Answer, *, max_bytes: int) -> "Part | None":
        """Return this part, knowing its whole length, if *answer* is exactly its rest; None otherwise.

        Raises:
            ArtifactTooLarge: that length is over *max_bytes*.
        """
        if answer.status != 206:
            return None
        found = _CONTENT_RANGE.fullmatch(answer.header("Content-Range"))
        if found is None or (answer.header("ETag") or self.validator) != self.validator:
            return None
        first, last, total = (int(number) for number in found.groups())
        fits = (
            first == self.offset
            and last == total - 1
            and self.total_bytes in {None, total}
            and answer.head.length in {None, total - first}
        )
        if fits and total > max_bytes:
            raise ArtifactTooLarge.over(max_bytes)
        return replace(self, total_bytes=total) if fits else None

    def check_end(self) -> None:
        """Make sure that what has ended is whole: the rest of a part may itself come without a length.

        Raises:
            Truncated: there is less than was announced.
            BadResponse: there is more.
        """
        if self.total_bytes is not None and self.offset != self.total_bytes:
            if self.offset < self.total_bytes:
                raise Truncated(BROKE_OFF)
            raise BadResponse("The artifact's host sent more than it announced.", cause="impossible-length")

    def at(self, offset: int) -> "Part":
        """Return this part with *offset* bytes."""
        return replace(self, offset=offset)
