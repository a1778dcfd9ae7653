"""Fuzzing: what was found stays mended, and whatever may be wrong with a parser would be found."""

import json
import operator
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.found import FOUND
from tests.fuzz.inputs import Bent
from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import Made, Sum, Target, trial

ANY = Bent((b"",))


def tried(target: Target, *inputs: bytes, still_s: float = 60) -> Sum:
    return trial(target, inputs, time.monotonic() + 3600, still_s=still_s)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_is_found_no_more(name: str) -> None:
    summed = tried(TARGETS[name], *FOUND[name])
    assert not summed.findings
    assert summed.inputs == len(FOUND[name])


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_valid_ends_well_everywhere(name: str) -> None:
    assert not tried(TARGETS[name], *TARGETS[name].make.valid).findings


@pytest.mark.parametrize(
    ("run", "bad", "kind", "where"),
    [
        pytest.param(partial(re.fullmatch, rb"(?:a|a)*b"), b"a" * 40, "spins", "re/__init__.py", id="in C"),
        pytest.param(partial(operator.mul, 8 * 2**20), b"abcd", "grows", "MiB", id="and gives it back"),
        pytest.param(json.loads, b"[", "raises", "json.decoder.JSONDecodeError", id="a foreign error"),
        pytest.param(os.system, b"kill -SEGV $PPID", "dies-of-SIGSEGV", "", id="the whole process"),
        pytest.param(os.system, b"sleep 60", "stands-still", "", id="for nothing"),
    ],
)
def test_a_fault_is_found_with_its_input_and_place(
    run: Callable[[bytes], object], bad: bytes, kind: str, where: str
) -> None:
    summed = tried(Target("faulty", run, ANY), b"1", bad, b"2", still_s=5)
    (found,) = summed.findings
    assert (found.kind, found.number, summed.inputs) == (kind, 1, 2)
    assert where in found.story


def test_a_finding_is_kept_told_and_can_be_had_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "faulty", Target("faulty", json.loads, Bent((b"[1]",))))
    monkeypatch.setattr(command, "FOUND", tmp_path)
    assert command.main(["--seconds", "5", "--target", "faulty", "--seed", "1"]) == 1
    told = capsys.readouterr().out
    assert "seed 1" in told
    file = next(each for each in tmp_path.iterdir() if each.suffix != ".txt")
    assert f"--target faulty --repeat {file}" in told
    assert "Error" in file.with_suffix(".txt").read_text()
    assert command.main(["--target", "faulty", "--repeat", str(file)]) == 1
    assert "Traceback" in capsys.readouterr().out


def test_a_run_ends_in_time_and_tells_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seconds", "2", "--target", "token"]) == 0
    assert re.search(r"token +[0-9,]+ inputs, slowest +[0-9]+ ms, grew by +[0-9.]+ MiB", capsys.readouterr().out)


def test_an_error_of_ours_is_no_finding() -> None:
    assert tried(Target("faulty", json.loads, ANY, (ValueError,)), b"[", b"1").inputs == 2


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_and_a_number_are_enough_to_have_an_input_again(name: str) -> None:
    made, again, other = (Made(TARGETS[name], seed) for seed in (1, 1, 2))
    inputs = [made[number] for number in range(50)]
    assert inputs == [again[number] for number in range(50)]
    assert inputs != [other[number] for number in range(50)]
    assert len({*inputs}) > 25
