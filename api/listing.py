"""Lists by page: a keyset cursor, so that page 1,000 costs what page 1 does."""

import base64
import binascii
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.body import invalid_fields
from api.problems import Problem
from shared.registration import ID

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""A filter's value; PostgreSQL has no place for NUL."""


class PageQuery(BaseModel):
    """The query of a list. Unknown parameters are refused: a misspelt filter must not look like no filter."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=True)

    limit: Annotated[int, Field(ge=1, le=200, description="How many items to return at most")] = 50
    cursor: Annotated[str | None, Field(max_length=200, description="`nextCursor` of the page before")] = None

    @property
    def before(self) -> str | None:
        """The id that the page begins below.

        Raises:
            Problem: 422, the cursor is none of ours.
        """
        if self.cursor is None:
            return None
        try:
            before = base64.b64decode(self.cursor.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
        except (UnicodeError, binascii.Error):
            before = ""
        if re.fullmatch(ID, before) is None:
            raise invalid_fields([{"parameter": "cursor", "detail": "is not a cursor of this list"}])
        return before

    @property
    def filters(self) -> dict[str, str]:
        """Column -> wanted value, of the filters that were given."""
        given = self.model_dump(mode="json", exclude={"limit", "cursor"}, exclude_none=True, by_alias=False)
        return {column: str(value) for column, value in given.items()}


def next_cursor(ids: list[str], limit: int) -> str | None:
    """Return the cursor of the page after the one that holds *ids*, or None if that was the last."""
    if len(ids) < limit:
        return None
    return base64.urlsafe_b64encode(ids[-1].encode("ascii")).decode("ascii")


def known_id(text: str) -> str:
    """Return *text* if it has the form of an id of ours.

    Raises:
        Problem: 404; there is nothing of that id, and no need to ask the store.
    """
    if re.fullmatch(ID, text) is None:
        raise Problem("not-found", "There is nothing of this id.")
    return text
