"""Whatever goes wrong in the child costs its answer; the next question has one."""

import asyncio
import os
import threading
from collections.abc import Iterator

import psutil
import pytest

from shared.errors import DigestMismatch
from shared.registration import Claim, Digest, RegistrationId
from tests.conftest import a_parsed_submission
from tests.running import until
from worker.digest.contained import Contained, NoAnswer
from worker.digest.diagnose import UNKNOWN
from worker.digest.explain import Diagnosis
from worker.digest.intake import Intake


def children() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "tests.unit.contained_child" in each.cmdline()]


@pytest.fixture
def contained() -> Iterator[Contained]:
    contained = Contained("tests.unit.contained_child", within_s=60)
    yield contained
    contained.close()


@pytest.fixture
def hurried() -> Iterator[Contained]:
    contained = Contained("tests.unit.contained_child", within_s=0.5)
    yield contained
    contained.close()


def test_questions_are_answered_by_one_child_that_stays(contained: Contained) -> None:
    assert [contained.ask(each) for each in (b"abc", b"x" * 60_000, b"")] == [b"cba", b"x" * 60_000, b""]
    assert len(children()) == 1


@pytest.mark.parametrize("question", [b"spin in C", b"spin", b"grow", b"raise", b"exit", b"talk", b"print much"])
def test_a_surprise_costs_its_answer_and_no_other(contained: Contained, question: bytes) -> None:
    with pytest.raises(NoAnswer):
        contained.ask(question)
    assert contained.ask(b"abc") == b"cba"


def test_a_child_that_does_not_answer_in_time_is_ended(hurried: Contained) -> None:
    with pytest.raises(NoAnswer):
        hurried.ask(b"sleep")
    until(lambda: not children(), what="the end of the child")


def test_a_child_that_was_killed_meanwhile_is_made_anew(contained: Contained) -> None:
    assert contained.ask(b"abc") == b"cba"
    (child,) = children()
    child.kill()
    with pytest.raises(NoAnswer, match="SIGKILL"):
        contained.ask(b"abc")
    assert contained.ask(b"abc") == b"cba"


def test_a_child_ends_with_whoever_asks(contained: Contained) -> None:
    contained.ask(b"abc")
    (child,) = children()
    contained.close()
    assert not child.is_running()


def test_a_child_knows_nothing_of_ours(contained: Contained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_DATABASE_URL", "postgresql://user:secret@host/registry")
    reading, writing = os.pipe()
    try:
        os.set_inheritable(writing, True)
        assert set(contained.ask(b"environment").decode().split(",")) <= {"PATH", "PYTHONPATH", "LC_CTYPE"}
        assert int(contained.ask(b"open files")) <= 5
        modules = contained.ask(b"modules").decode().split(",")
        assert not {"sqlalchemy", "pydantic", "celery"} & set(modules)
    finally:
        os.close(reading)
        os.close(writing)


def test_many_who_ask_at_once_are_answered_each_with_its_own(contained: Contained) -> None:
    answers: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda n=n: answers.update({n: contained.ask(b"%d," % n)})) for n in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert answers == {n: (b"%d," % n)[::-1] for n in range(20)}


def test_a_mismatch_that_cannot_be_looked_at_is_told_all_the_same() -> None:
    class _Broken(Contained):
        def ask(self, question: bytes) -> bytes:
            raise NoAnswer("it ended by SIGPROF")

    mismatch = explained(Diagnosis(_Broken("nothing")), b"12345")
    assert mismatch.cause == UNKNOWN.word == "different-content"


def test_the_diagnosis_runs_contained() -> None:
    mismatch = explained(Diagnosis(), b"<html>")
    assert mismatch.cause == "html-page"
    assert mismatch.facts == {"declared": "sha256:" + "ab" * 32, "computed": "sha256:" + "cd" * 32}


def explained(diagnosis: Diagnosis, served: bytes) -> DigestMismatch:
    claim = Claim(RegistrationId("registration-1"), 1, 1, a_parsed_submission(checksum="sha256:" + "ab" * 32))
    intake = Intake(max_bytes=100)
    intake.take(served)
    try:
        return asyncio.run(diagnosis(claim, Digest("cd" * 32, len(served)), intake, {}))
    finally:
        diagnosis.close()
