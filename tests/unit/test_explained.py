"""Every code and cause has a page, every page belongs to one, and the reference says of each whose fault it is."""

import ast
import asyncio
import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

import shared.errors
from api.http.problems import KINDS, Problem
from api.routes.problem_pages import explain_problem, list_problems
from shared.errors import RegistryError
from shared.explained import CODES_WITH_A_STATUS, causes_of, codes, explained
from worker.digest import diagnose
from worker.fetch import tls, translation

ROOT = Path(__file__).parent.parent.parent
ERRORS = [
    each
    for each in vars(shared.errors).values()
    if isinstance(each, type) and issubclass(each, RegistryError) and "code" in vars(each)
]


def causes_in_the_code() -> Iterator[str]:
    """Return every cause that is given by a literal, and those of the tables that others come from."""
    for room in ("api", "shared", "worker"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "cause" and isinstance(node.value, ast.Constant):
                    yield str(node.value.value)
    yield from (cause for cause, _ in (*tls._CAUSES.values(), *tls._REASONS.values()))
    yield from (each.word for each in vars(diagnose).values() if isinstance(each, diagnose.Cause))
    yield from translation._SHORT_OF.values()
    yield from (each.word for each in (diagnose._served_version("1.0.0"), diagnose._declared_version("1.0.0")))
    yield from ("threads", "rate-limited", shared.errors.REGISTERED_MEANWHILE)


def test_every_cause_of_the_code_is_explained_and_no_other() -> None:
    used = {cause for cause in causes_in_the_code() if cause} - set(codes())
    assert used == {cause for code in codes() for cause in causes_of(code)}


def test_no_word_means_two_things() -> None:
    words = [*codes(), *(cause for code in codes() for cause in causes_of(code))]
    assert len(words) == len(set(words))


def test_every_code_is_explained() -> None:
    assert set(codes()) == set(KINDS)
    assert {each.code for each in ERRORS if each.code != "registry-error"} <= set(codes())


@pytest.mark.parametrize("error", ERRORS)
def test_the_kinds_are_those_of_the_errors(error: type[RegistryError]) -> None:
    if error is not RegistryError:
        kind = KINDS[error.code]
        assert kind.faults[0] == error.fault
        assert kind.retryable == error.retryable


@pytest.mark.parametrize("status", [202, 204, 304, 401, 404, 423, 429, 500, 503, 599])
def test_a_status_is_explained_as_what_comes_of_it(status: int) -> None:
    found = explained(f"status-{status}")
    assert found is not None
    assert found.code in CODES_WITH_A_STATUS
    assert str(status) in found.happened


@pytest.mark.parametrize("word", ["", "status-", "status-1", "status-0404", "nothing", "status-404 "])
def test_what_is_no_word_of_ours_is_not_explained(word: str) -> None:
    assert explained(word) is None


def test_the_reference_has_the_table_of_the_code() -> None:
    text = (ROOT / "docs/reference.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| ([a-z ]+) \| (yes|no) \| (.*) \|$", text, re.MULTILINE)
    assert {code: (int(status), fault, again, causes) for code, status, fault, again, causes in rows} == {
        code: (
            kind.status,
            " or ".join(kind.faults),
            "yes" if kind.retryable else "no",
            " ".join(
                [f"`{each}`" for each in causes_of(code)]
                + ["`status-404` and its like"] * (code in CODES_WITH_A_STATUS)
            ),
        )
        for code, kind in KINDS.items()
    }


def page(word: str | None, accept: str) -> Response:
    """Return the page of *word*, or the list of all."""
    request = Request({"type": "http", "headers": [(b"accept", accept.encode())]})
    return asyncio.run(explain_problem(word, request) if word else list_problems(request))


@pytest.mark.parametrize("accept", ["text/html,*/*", "*/*"])
def test_every_word_has_a_page(accept: str) -> None:
    for word in [*codes(), *(each for code in codes() for each in causes_of(code)), "status-404"]:
        found = explained(word)
        assert found is not None
        shown = page(word, accept)
        assert shown.status_code == 200
        assert shown.headers["Content-Type"].startswith("text/html" if "html" in accept else "text/plain")
        text = html.unescape(bytes(shown.body).decode())
        assert all(each in text for each in ("What to do", f"/problems/{found.code}", found.happened, found.to_do))


def test_what_is_no_word_has_none() -> None:
    with pytest.raises(Problem) as refused:
        page("<script>", "text/html")
    assert refused.value.status == 404


def test_all_are_listed() -> None:
    listed = bytes(page(None, "*/*").body).decode()
    assert all(f"/problems/{code}  " in listed for code in codes())
