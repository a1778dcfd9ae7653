"""What code and documents refer to is there: files by their paths, invariants by their numbers."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = [path for room in ("api", "bench", "cli", "shared", "tests", "worker") for path in (ROOT / room).rglob("*.py")]
DOCUMENTS = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def found(files: list[Path], pattern: str) -> Iterator[tuple[str, Path]]:
    for path in files:
        for each in re.findall(pattern, path.read_text()):
            yield each, path


def test_every_invariant_that_is_cited_is_one() -> None:
    numbered = set(re.findall(r"^(\d+)\. ", (ROOT / "docs/invariants.md").read_text(), re.MULTILINE))
    assert numbered == {str(number) for number in range(1, len(numbered) + 1)}
    cited = [
        (number, path)
        for numbers, path in found([*CODE, *DOCUMENTS], r"\binvariants? (\d+(?:(?:, | and | to )\d+)*)")
        for number in re.findall(r"\d+", numbers)
    ]
    assert len(cited) > 20
    assert [each for each in cited if each[0] not in numbered] == []


@pytest.mark.parametrize("files", [CODE, DOCUMENTS], ids=["code", "documents"])
def test_every_file_that_is_named_with_its_room_is_there(files: list[Path]) -> None:
    named = list(found(files, r"`((?:api|bench|cli|deploy|docs|shared|tests|worker)/[\w./-]+\.\w+)`"))
    assert len(named) > 10
    assert [(name, str(path.relative_to(ROOT))) for name, path in named if not (ROOT / name).exists()] == []


def test_every_file_that_is_named_alone_stands_beside_who_names_it() -> None:
    named = list(found(CODE, r"`([a-z_]+\.py)`"))
    assert named
    assert [(name, str(path.relative_to(ROOT))) for name, path in named if not (path.parent / name).exists()] == []


def test_the_walks_pass_every_room() -> None:
    walks = (ROOT / "docs/architecture.md").read_text()
    rooms = {path.parent for path in CODE if path.parent.name not in {"versions", "migrations", "bench", "tests"}}
    rooms = {room for room in rooms if "tests" not in room.parts and "bench" not in room.parts}
    assert [room for room in rooms if str(room.relative_to(ROOT)) not in walks] == []
