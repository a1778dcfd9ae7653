"""The history checker catches what it is for: made-up histories, one thing wrong in each."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.errors import DigestMismatch
from shared.registration import Plugin, PluginId, Registration, RegistrationId, Status, Submission
from tests.faults.history import Answer, Document, mistold, violations

START = datetime(2026, 1, 15, 8, tzinfo=UTC)
CHECKSUM = "sha256:" + "ab" * 32
URL = "https://artifacts.example.com/plugin.tar.gz"
SUBMITTED = {"name": "Nginx Log", "version": "1.0.0", "pluginType": "log", "artifactUrl": URL, "checksum": CHECKSUM}
FAILURE = DigestMismatch("They differ.", declared=CHECKSUM, computed="sha256:" + "cd" * 32).failure()
ONE, TWO, OTHER = (RegistrationId(f"registration-{n}") for n in (1, 2, 3))
P1, P2 = PluginId("plugin-1"), PluginId("plugin-2")


def registration(id_: RegistrationId = ONE, plugin_id: PluginId | None = P1, **changes: Any) -> Registration:
    return replace(
        Registration(
            id=id_,
            submission=Submission.model_validate(SUBMITTED),
            status=Status.REGISTERED if plugin_id else Status.REJECTED,
            attempts=1,
            bytes_downloaded=10,
            artifact_bytes=10,
            created_at=START,
            updated_at=START + timedelta(seconds=1),
            next_attempt_at=None,
            plugin_id=plugin_id,
            failure=None if plugin_id else FAILURE,
        ),
        **changes,
    )


def plugin(id_: PluginId = P1, **changes: Any) -> Plugin:
    fields = {**Submission.model_validate(SUBMITTED).model_dump(by_alias=False), "id": id_, "registered_at": START}
    return Plugin.model_construct(**{**fields, **changes})


def accepted(at: float = 1, id_: str = ONE, status: str = "queued", **changes: Any) -> Answer:
    document = {"id": id_, "status": status, "pluginId": None, "problem": None, **SUBMITTED}
    return replace(Answer(at - 0.1, at, 202, document, submission=SUBMITTED), **changes)


def looked(at: float, status: str, id_: str = ONE, plugin_id: str | None = None, code: str | None = None) -> Answer:
    problem = {"code": code} if code else None
    document = {"id": id_, "status": status, "pluginId": plugin_id, "problem": problem, **SUBMITTED}
    return Answer(at - 0.1, at, 200, document)


def shown(at: float = 3, **changes: Any) -> Answer:
    document = plugin().model_dump(mode="json", by_alias=True) | changes
    return Answer(at - 0.1, at, 200, document, submission=SUBMITTED)


def refused(at: float, code: str = "digest-mismatch", *, retryable: bool = False) -> Answer:
    document = {"code": code, "instance": f"/api/v1/registrations/{ONE}", "retryable": retryable}
    return Answer(at - 0.1, at, 502 if retryable else 422, document, submission=SUBMITTED)


def found(
    answers: list[Answer], registrations: list[Registration], plugins: list[Plugin], *, true: str = CHECKSUM
) -> list[str]:
    return violations(answers, registrations, plugins, lambda url: {true} if url == URL else set())


def test_a_good_history_has_nothing_wrong() -> None:
    answers = [accepted(), looked(2, "verifying"), looked(3, "registered", plugin_id=P1), shown(4), accepted(2.5)]
    assert found(answers, [registration()], [plugin()]) == []


def test_a_refusal_and_a_second_try_after_it_have_nothing_wrong() -> None:
    answers = [accepted(), refused(2), looked(3, "rejected", code="digest-mismatch"), accepted(4, TWO), shown(5)]
    again = registration(TWO, created_at=START + timedelta(seconds=1), updated_at=START + timedelta(seconds=2))
    assert found(answers, [registration(plugin_id=None), again], [plugin()]) == []


def test_a_request_that_was_on_its_way_when_the_end_came_has_nothing_wrong() -> None:
    slow = replace(looked(4, "verifying"), asked_at=1.5)
    answers = [accepted(), looked(2, "registered", plugin_id=P1), slow]
    assert found(answers, [registration()], [plugin()]) == []


def test_an_answer_that_names_nothing_has_nothing_to_be_lost() -> None:
    unavailable = Answer(0, 1, 503, {"code": "store-unavailable"}, submission=SUBMITTED)
    assert found([unavailable], [], []) == []


def in_the_store(**changes: Any) -> tuple[list[Registration], list[Plugin]]:
    return [registration(**changes)], [plugin()]


BAD: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "an accepted registration is not there": ("lost", lambda: found([accepted()], [], [])),
    "one that was asked for is not there": ("lost", lambda: found([looked(1, "queued")], [], [])),
    "one that a refusal named is not there": ("lost", lambda: found([refused(1)], [], [])),
    "a plugin that was shown is not there": (
        "lost",
        lambda: found([shown()], [registration(plugin_id=None)], []),
    ),
    "a 202 names no registration": (
        "lost",
        lambda: found([Answer(0, 1, 202, {}, submission=SUBMITTED)], *in_the_store()),
    ),
    "a submission was answered with another's registration": (
        "lost",
        lambda: found([accepted(submission={**SUBMITTED, "version": "2.0.0"})], *in_the_store()),
    ),
    "an accepted registration is queued at the end": (
        "not final",
        lambda: found([accepted()], [registration(plugin_id=None, status=Status.QUEUED)], []),
    ),
    "one is still being verified, and nobody was told of it": (
        "not final",
        lambda: found([], [registration(plugin_id=None, status=Status.VERIFYING)], []),
    ),
    "two were in flight for one submission": (
        "doubled",
        lambda: found([], [registration(), registration(TWO, None)], [plugin()]),
    ),
    "two are in flight for one submission": (
        "doubled",
        lambda: found(
            [],
            [
                registration(plugin_id=None, status=Status.QUEUED),
                registration(TWO, None, created_at=START + timedelta(seconds=9), status=Status.QUEUED),
            ],
            [],
        ),
    ),
    "two plugins have one name and version": (
        "doubled: nginx-log",
        lambda: found(
            [],
            [registration(), registration(TWO, P2, created_at=START + timedelta(seconds=2))],
            [plugin(), plugin(P2, name="NGINX.log")],
        ),
    ),
    "one plugin is of two registrations": (
        "doubled: plugin-1",
        lambda: found(
            [], [registration(), registration(TWO, P1, created_at=START + timedelta(seconds=2))], [plugin()]
        ),
    ),
    "a plugin has no registration": ("torn", lambda: found([], [], [plugin()])),
    "a registered one has no plugin": ("torn", lambda: found([], [registration()], [])),
    "a rejected one has a plugin": (
        "torn",
        lambda: found([], [registration(status=Status.REJECTED)], [plugin()]),
    ),
    "a plugin is not what was submitted": (
        "torn",
        lambda: found([], [registration()], [plugin(plugin_runtime="python")]),
    ),
    "a final one is in flight again": (
        "changed",
        lambda: found([looked(1, "registered", plugin_id=P1), looked(2, "queued")], *in_the_store()),
    ),
    "a failed one was registered after all": (
        "changed",
        lambda: found([refused(1, "truncated", retryable=True)], *in_the_store()),
    ),
    "a rejected one was told to be registered later": (
        "changed",
        lambda: found([refused(1), looked(2, "registered", plugin_id=P1)], *in_the_store()),
    ),
    "a registered one was rejected in the end": (
        "changed",
        lambda: found([looked(1, "registered", plugin_id=P1)], [registration(plugin_id=None)], []),
    ),
    "the reason of a rejection changed": (
        "changed",
        lambda: found(
            [refused(1), looked(2, "rejected", code="artifact-missing")], [registration(plugin_id=None)], []
        ),
    ),
    "a registration became another plugin": (
        "changed",
        lambda: found(
            [looked(1, "registered", plugin_id=P2)], [registration(), registration(OTHER, P2)], [plugin(), plugin(P2)]
        ),
    ),
    "a plugin changed after it was shown": (
        "changed: plugin-1",
        lambda: found([shown(registeredAt="2026-01-15T07:59:59.000Z")], *in_the_store()),
    ),
    "a plugin's bytes do not hash to its digest": (
        "false",
        lambda: found([], *in_the_store(), true="sha256:" + "cd" * 32),
    ),
    "a shown plugin's bytes do not hash to its digest": (
        "false",
        lambda: found([shown(checksum="sha256:" + "cd" * 32)], *in_the_store()),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_history_is_caught(what: str) -> None:
    kind, bad = BAD[what]
    assert [each for each in bad() if each.startswith(kind)], f"nobody noticed that {what}"


def event(seq: int = 1, registration_id: str = ONE, kind: str = "registered", plugin_id: str | None = P1) -> Document:
    return {
        "seq": seq,
        "type": f"registration.{kind}",
        "data": {"registrationId": registration_id, "pluginId": plugin_id},
    }


MISTOLD: dict[str, tuple[str, list[Document]]] = {
    "nobody was told": ("lost", []),
    "it was told twice": ("doubled", [event(), event(2)]),
    "a number is missing": ("gap", [event(2)]),
    "the order is another": ("gap", [event(2), event(1, TWO)]),
    "it was told of as something else": ("false", [event(kind="rejected")]),
    "it was told of with another plugin": ("false", [event(plugin_id=P2)]),
    "one was told of that has not ended": ("false", [event(), event(2, TWO)]),
}


def test_a_feed_that_tells_each_once_has_nothing_wrong() -> None:
    assert mistold([registration()], [event()]) == []


@pytest.mark.parametrize("what", MISTOLD)
def test_a_bad_feed_is_caught(what: str) -> None:
    kind, feed = MISTOLD[what]
    going_on = registration(TWO, plugin_id=None, status=Status.VERIFYING)
    found = mistold([registration(), going_on], feed)
    assert [each for each in found if each.startswith(kind)], f"nobody noticed that {what}"
