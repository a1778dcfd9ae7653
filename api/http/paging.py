"""Lists by page: a keyset cursor, so that page 1,000 costs what page 1 does."""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.http.body import invalid_fields
from api.http.problems import Problem
from shared.characters import NO_HIDDEN, refuse_hidden
from shared.fields import CHECKSUM, MAX_NAME_CHARACTERS, NAME, SEMVER, parse_checksum, parse_name, parse_version
from shared.registration import ID, REGISTRATION_ID, host_of

_NO_COLUMNS = {"limit", "cursor", "since", "dry_run"}
"""What a query may hold that is no column with a value."""
MAX_HOST_CHARACTERS = 260
MAX_NOTE_CHARACTERS = 200
_CAUSE = re.compile(r"[a-z0-9-]+")


class _Item(Protocol):
    @property
    def id(self) -> str: ...


Listed = TypeVar("Listed", bound=_Item)

Text = Annotated[str, AfterValidator(refuse_hidden), Field(json_schema_extra={"pattern": NO_HIDDEN})]
"""A filter's value. With something hidden in it it would find nothing, and nobody could see why."""


def _known_name(name: str) -> str:
    return _or_nothing_matches(parse_name, name)


def _known_version(version: str) -> str:
    if " " in version:
        raise ValueError("matches nothing: in a query '+' means a space; send '%2B' for it, as in 1.0.0%2Bbuild")
    return _or_nothing_matches(parse_version, version)


def _known_checksum(checksum: str) -> str:
    if re.fullmatch(CHECKSUM, checksum):  # that of nothing, too: there was a time when it could be registered
        return checksum.lower()
    return _or_nothing_matches(parse_checksum, checksum)


def _known_cause(cause: str) -> str:
    if _CAUSE.fullmatch(cause) is None:
        raise ValueError("matches nothing: a cause is one word in lower case, such as status-404 or html-page")
    return cause


def _known_registration(text: str) -> str:
    if re.fullmatch(REGISTRATION_ID, text) is None:
        raise ValueError("matches nothing: it is not the id of a registration")
    return text


def _or_nothing_matches(parse: Callable[[str], str], text: str) -> str:
    """Return what *parse* makes of *text*; a filter that can match nothing must not look like an answer."""
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"matches nothing: {error}") from error


def _one_host(host: str) -> str:
    """Return *host* as registrations are found by it; by what is none nothing is found."""
    try:
        return host_of(f"https://{host}")
    except ValueError:
        return host.lower()


def _filter(pattern: str, *, at_most: int) -> Any:
    """Return what a filter that is held to *pattern* says of itself in the document."""
    return Field(max_length=at_most, json_schema_extra={"pattern": pattern})


Name = Annotated[Text, _filter(NAME, at_most=MAX_NAME_CHARACTERS), AfterValidator(_known_name)]
Version = Annotated[Text, _filter(SEMVER, at_most=255), AfterValidator(_known_version)]
Checksum = Annotated[Text, _filter(CHECKSUM, at_most=200), AfterValidator(_known_checksum)]
Cause = Annotated[Text, _filter(f"^{_CAUSE.pattern}$", at_most=100), AfterValidator(_known_cause)]
Host = Annotated[
    Text,
    AfterValidator(_one_host),
    Field(max_length=MAX_HOST_CHARACTERS, description="Host, and port where the URL has one"),
]
Note = Annotated[Text, Field(max_length=MAX_NOTE_CHARACTERS)]
RegistrationRef = Annotated[Text, _filter(REGISTRATION_ID, at_most=100), AfterValidator(_known_registration)]


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _rfc3339(given: str | datetime) -> str | datetime:
    """Refuse what pydantic would take for a moment beside RFC 3339: numbers of seconds, and dates alone."""
    if isinstance(given, str) and _RFC3339.fullmatch(given) is None:
        raise ValueError("write it as RFC 3339 does, such as 2026-01-15T08:00:00Z")
    return given


Since = Annotated[
    AwareDatetime,
    BeforeValidator(_rfc3339),
    Field(description="Only those submitted at or after this moment (RFC 3339)"),
]


def milliseconds(moment: datetime | None) -> int | None:
    """Return *moment* in milliseconds since the epoch."""
    return max(0, int(moment.timestamp() * 1000)) if moment else None


class PageQuery(BaseModel):
    """The query of a list. Unknown parameters are refused: a misspelt filter must not look like no filter."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=True)

    limit: Annotated[int, Field(ge=1, le=200, description="How many items to return at most")] = 50
    cursor: Annotated[str | None, Field(max_length=200, description="`nextCursor` of the page before")] = None

    def before(self, kind: str) -> str | None:
        """Return the id, of a *kind*, that the page begins below.

        Raises:
            Problem: 422, the cursor is none of ours.
        """
        if self.cursor is None:
            return None
        try:
            before = base64.b64decode(self.cursor.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
        except (UnicodeError, binascii.Error):
            before = ""
        if re.fullmatch(ID, before) is None or not before.startswith(f"{kind}-"):
            raise invalid_fields([{"parameter": "cursor", "detail": "is not a cursor of this list"}])
        return before

    @property
    def filters(self) -> dict[str, str]:
        """Column -> wanted value, of the filters that were given."""
        given = self.model_dump(mode="json", exclude=_NO_COLUMNS, exclude_none=True, by_alias=False)
        return {column: str(value) for column, value in given.items()}


async def a_page(
    ask: Callable[..., Awaitable[Sequence[Listed]]],
    fetch: Callable[..., Sequence[Listed]],
    query: PageQuery,
    kind: str,
) -> tuple[list[Listed], str | None]:
    """Return the page of *kind* that *query* asks for, and the cursor of the next, where there is one.

    *fetch* takes ``limit`` and ``before``, and *ask* calls it: it is asked for one more than the page has.
    """
    found = await ask(fetch, limit=query.limit + 1, before=query.before(kind))
    shown = list(found[: query.limit])
    return shown, cursor_of(shown[-1].id) if len(found) > query.limit else None


def cursor_of(item_id: str) -> str:
    """Return the cursor of the page that begins below *item_id*."""
    return base64.urlsafe_b64encode(item_id.encode("ascii")).decode("ascii")


def refuse_repeats(request: Request) -> None:
    """Refuse a query that gives a parameter twice: of two filters one would be heeded, and nobody could tell which.

    Raises:
        Problem: 422, with each such parameter.
    """
    counts = Counter(name for name, _value in request.query_params.multi_items())
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise invalid_fields([{"parameter": name, "detail": "must be given once"} for name in repeated])


def known_id(text: str) -> str:
    """Return *text* if it has the form of an id of ours.

    Raises:
        Problem: 404; there is nothing of that id, and no need to ask the store.
    """
    if re.fullmatch(ID, text) is None:
        raise Problem("not-found", "There is nothing of this id.")
    return text
