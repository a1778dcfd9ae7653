"""The suite in several processes: what is shared is shared by tests that are there, and by all that use it."""

import re
from pathlib import Path

from tests.scopes import CLUSTER, FIRST, REGISTRY, scope_of

ROOT = Path(__file__).parent.parent.parent
FILES = [path for path in (ROOT / "tests").rglob("test_*.py") if "fuzz" not in path.parts]


def scopes_of_those_that_use(fixture: str) -> set[str]:
    """Return the scopes of files with a test that takes *fixture* and does not make one of its own."""
    using = (path for path in FILES if re.search(rf"^def test_\w+\([^)]*\b{fixture}: ", path.read_text(), re.M))
    return {scope_of(str(path.relative_to(ROOT))) for path in using}


def test_every_file_that_uses_the_shared_registry_is_in_its_scope() -> None:
    assert scopes_of_those_that_use("registry") == {REGISTRY}


def test_what_is_begun_first_is_there() -> None:
    there = {scope_of(str(path.relative_to(ROOT))) for path in FILES}
    assert set(FIRST) <= there
    assert CLUSTER in there
