"""Lists by page: a cursor leads to where it was made, and nothing else is one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from api.http.paging import PageQuery, a_page, cursor_of, known_id
from api.http.problems import Problem

ID = "plugin-019bc2a4-6f00-7c3e-8f6e-5b1f0d9a7c11"


@dataclass(frozen=True)
class Item:
    id: str


def page_of(found: list[Item], limit: int) -> tuple[list[Item], str | None]:
    """Return the first page of a store that holds *found*."""

    async def ask(fetch: Callable[..., list[Item]], **asked: Any) -> list[Item]:
        return fetch(**asked)

    def fetch(*, limit: int, before: str | None) -> list[Item]:
        assert before is None
        return found[:limit]

    return asyncio.run(a_page(ask, fetch, PageQuery(limit=limit), "plugin"))


@settings(deadline=None)
@given(st.sampled_from(["plugin", "registration"]), st.uuids(), st.integers(1, 200))
def test_a_cursor_leads_back_to_the_last_id_of_its_page(kind: str, number: object, limit: int) -> None:
    last = f"{kind}-{number}"
    shown, cursor = page_of([Item(ID)] * (limit - 1) + [Item(last), Item(ID)], limit)
    assert [each.id for each in shown][-1] == last
    assert cursor is not None
    assert PageQuery(cursor=cursor).before(kind) == last
    with pytest.raises(Problem):
        PageQuery(cursor=cursor).before("registration" if kind == "plugin" else "plugin")


def test_a_cursor_needs_no_escaping_in_a_query() -> None:
    cursor = cursor_of(ID)
    assert cursor.replace("-", "").replace("_", "").rstrip("=").isalnum()


@pytest.mark.parametrize("count", [0, 1, 49, 50])
def test_a_page_that_nothing_follows_is_the_last(count: int) -> None:
    assert page_of([Item(ID)] * count, 50) == ([Item(ID)] * count, None)


@pytest.mark.parametrize("text", ["", "plugin-", "plugin-none", f"{ID}\x00", f"{ID} ", ID.upper()])
def test_what_has_no_form_of_an_id_is_not_found_without_the_store(text: str) -> None:
    assert known_id(ID) == ID
    with pytest.raises(Problem) as refused:
        known_id(text)
    assert refused.value.status == 404


def test_without_a_cursor_the_list_begins_at_its_beginning() -> None:
    assert PageQuery().before("plugin") is None


@pytest.mark.parametrize(
    "cursor",
    ["%", "%%", "abc", "=", "====", "é", "a b", " cGx1Z2lu", "cGx1Z2lu\n", "cGx1Z2l", "____", ID],
)
def test_a_cursor_that_is_none_of_ours_is_refused_and_named(cursor: str) -> None:
    with pytest.raises(Problem) as refused:
        _ = PageQuery(cursor=cursor).before("plugin")
    assert refused.value.status == 422
    assert refused.value.document["errors"] == [{"parameter": "cursor", "detail": "is not a cursor of this list"}]


@pytest.mark.parametrize("limit", [-1, 0, 201])
def test_a_page_holds_between_1_and_200_items(limit: int) -> None:
    assert PageQuery(limit=1).limit == 1
    assert PageQuery(limit=200).limit == 200
    with pytest.raises(ValidationError):
        PageQuery(limit=limit)


def test_a_misspelt_parameter_is_refused() -> None:
    with pytest.raises(ValidationError, match="limt"):
        PageQuery.model_validate({"limt": 5})


def test_only_what_was_given_filters() -> None:
    class Filtered(PageQuery):
        plugin_type: str | None = None
        version: str | None = None

    assert Filtered(plugin_type="log", limit=5, cursor="x").filters == {"plugin_type": "log"}


@pytest.mark.parametrize("cursor", ["AAAA", "", "cGx1Z2lu", "cGx1Z2luLW5vbmU="])
def test_a_forged_cursor_never_reaches_the_store(cursor: str) -> None:
    with pytest.raises(Problem):
        _ = PageQuery(cursor=cursor).before("plugin")
