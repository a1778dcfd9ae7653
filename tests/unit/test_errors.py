"""The class of a failure is its retry policy, its code is stable, and a client can be told of each."""

import json

import pytest

import shared.errors
from api.http.problems import problem_of
from shared.errors import (
    ArtifactTooLarge,
    Canceled,
    Conflict,
    DigestMismatch,
    Failure,
    ForbiddenUrl,
    RegistryError,
    Rejected,
    Shortage,
    StoreUnavailable,
    Surprise,
    Unavailable,
    UpstreamBusy,
)
from shared.explained import explained
from shared.registration import RegistrationId

ALL = [each for each in vars(shared.errors).values() if isinstance(each, type) and issubclass(each, RegistryError)]
ROOTS = [RegistryError, Rejected, Unavailable]
NAMED = [each for each in ALL if each not in ROOTS]
CODES = """
    digest-mismatch artifact-too-large artifact-missing forbidden-url host-not-found forbidden-address bad-response
    bad-certificate bad-redirect conflict connect-failed upstream-busy truncated read-timeout deadline-passed
    attempts-used-up store-unavailable canceled registry-shortage internal-error
"""


@pytest.mark.parametrize("kind", NAMED)
def test_every_failure_has_a_code_of_its_own(kind: type[RegistryError]) -> None:
    assert "code" in vars(kind)
    assert [each for each in NAMED if each.code == kind.code] == [kind]


def test_the_codes_that_clients_know_stay() -> None:
    assert {kind.code for kind in NAMED} == set(CODES.split())


@pytest.mark.parametrize("kind", ALL)
def test_no_failure_looks_like_a_network_error(kind: type[RegistryError]) -> None:
    assert not issubclass(kind, OSError)


@pytest.mark.parametrize("kind", ALL)
def test_a_failure_is_retryable_exactly_if_it_is_unavailable_or_an_operators_wish(kind: type[RegistryError]) -> None:
    assert kind.retryable is issubclass(kind, Unavailable | Canceled)


@pytest.mark.parametrize("kind", NAMED)
def test_every_failure_has_one_root(kind: type[RegistryError]) -> None:
    assert sum(issubclass(kind, root) for root in (Rejected, Unavailable, Conflict, Canceled)) == 1


@pytest.mark.parametrize("kind", ALL)
def test_a_failure_keeps_all_that_the_error_said(kind: type[RegistryError]) -> None:
    error = kind("It broke.", declared="a", computed="b")
    assert str(error) == "It broke."
    assert error.failure() == Failure(
        kind.code, "It broke.", kind.fault, kind.retryable, {"declared": "a", "computed": "b"}
    )


def test_a_retry_after_is_for_us_and_not_for_the_client() -> None:
    error = UpstreamBusy("Busy.", retry_after_s=7.5, status="503")
    assert error.retry_after_s == 7.5
    assert error.failure().facts == {"status": "503"}
    assert UpstreamBusy("Busy.").retry_after_s is None


def test_the_errors_that_write_themselves_name_what_a_client_needs() -> None:
    assert Conflict.with_plugin("plugin-1", "sha256:a").facts == {"pluginId": "plugin-1", "checksum": "sha256:a"}
    assert "(1024 bytes)" in ArtifactTooLarge.over(1024).detail


@pytest.mark.parametrize("kind", NAMED)
def test_every_failure_has_a_problem_document(kind: type[RegistryError]) -> None:
    problem = problem_of(kind("It broke.", computed="b").failure(), RegistrationId("registration-1"))
    assert problem.document == {
        "type": f"/problems/{kind.code}",
        "title": problem.document["title"],
        "status": problem.status,
        "detail": "It broke.",
        "code": kind.code,
        "cause": kind.code,
        "fault": kind.fault,
        "retryable": kind.retryable,
        "instance": "/api/v1/registrations/registration-1",
        "computed": "b",
        "toDo": problem.document["toDo"],
        "help": f"/problems/{kind.code}",
    }
    assert problem.document["title"]
    known = explained(kind.code)
    assert known is not None
    assert problem.document["toDo"] == known.to_do


def test_a_cause_that_has_a_page_is_explained_by_that_and_a_foreign_one_by_its_code() -> None:
    def told(cause: str) -> tuple[str, str]:
        found = problem_of(Failure("digest-mismatch", "It differs.", "submitter", False, {}, cause)).document
        return found["help"], found["toDo"]

    assert told("html-page")[0] == "/problems/html-page"
    assert "Use the URL of the file itself" in told("html-page")[1]
    assert told("status-404") == told("nobody-knows") == told("digest-mismatch")
    assert told("nobody-knows")[0] == "/problems/digest-mismatch"


@pytest.mark.parametrize("kind", NAMED)
def test_the_status_of_a_failure_follows_its_root(kind: type[RegistryError]) -> None:
    status = problem_of(kind("It broke.").failure()).status
    if kind in {StoreUnavailable, Shortage}:
        assert status == 503
    elif kind is Surprise:
        assert status == 500
    elif issubclass(kind, Unavailable):
        assert status == 502
    else:
        assert status == (409 if kind in {Conflict, Canceled} else 422)


def test_a_cause_is_told_beside_the_code() -> None:
    failure = DigestMismatch("They differ.", cause="html-page").failure()
    assert (failure.code, failure.cause) == ("digest-mismatch", "html-page")
    assert problem_of(failure).document["cause"] == "html-page"


def test_a_code_that_a_newer_version_stored_is_still_a_problem() -> None:
    assert problem_of(Failure("of-tomorrow", "It broke.", "registry", False)).status == 500


def test_a_problem_without_a_registration_has_no_instance() -> None:
    assert "instance" not in problem_of(ForbiddenUrl("No.").failure()).document


def test_a_store_that_cannot_take_it_says_when_to_come_back() -> None:
    assert problem_of(StoreUnavailable("Down.").failure()).headers == {"Retry-After": "2"}


def test_why_a_store_is_away_is_for_logs_and_not_for_clients() -> None:
    away = StoreUnavailable("It is away.", reason='FATAL: role "x" does not exist')
    assert str(away) == 'It is away: FATAL: role "x" does not exist.'
    assert "role" not in json.dumps(problem_of(away.failure()).document)
