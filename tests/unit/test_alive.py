"""The sign of life, asked for as a health check asks."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.alive import first_touch, touch
from tests.running import PROJECT


def asked(*arguments: object) -> tuple[int, str]:
    """Return the status of a health check, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "shared.alive", *map(str, arguments)],
        cwd=PROJECT,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_was_touched_lately_lives(tmp_path: Path) -> None:
    touch(tmp_path / "alive")
    assert asked(tmp_path / "alive", 600) == (0, "")


@pytest.mark.parametrize("shift_s", [-60, 3600])
def test_what_was_touched_long_ago_or_in_the_future_does_not_and_a_touch_mends_it(
    tmp_path: Path, shift_s: float
) -> None:
    file = tmp_path / "alive"
    file.touch()
    os.utime(file, times=(time.time() + shift_s,) * 2)
    status, sentence = asked(file)
    assert (status, sentence.count("\n")) == (1, 1)
    assert f"{file} was touched" in sentence
    touch(file)
    assert asked(file, 600) == (0, "")


def test_what_was_never_touched_does_not(tmp_path: Path) -> None:
    status, sentence = asked(tmp_path / "alive")
    assert (status, sentence.count("\n")) == (1, 1)
    assert "No such file" in sentence


@pytest.mark.parametrize("arguments", [(), ("alive", "soon")])
def test_a_question_that_is_none_is_answered_by_how_to_ask(arguments: tuple[str, ...]) -> None:
    assert asked(*arguments) == (1, "Usage: python3 -m shared.alive FILE [SECONDS]\n")


def test_a_file_that_cannot_be_touched_is_refused_at_first_and_ends_nothing_later(tmp_path: Path) -> None:
    nowhere = tmp_path / "gone" / "alive"
    with pytest.raises(SystemExit, match=r"^REGISTRY_ALIVE_FILE: .*: No such file or directory\. [^\n]*$"):
        first_touch(nowhere)
    touch(nowhere)
    first_touch(None)
    touch(None)
