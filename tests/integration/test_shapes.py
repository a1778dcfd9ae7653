"""Every recorded shape of an answer passes through the parser in any cut, and the whole path to its outcome."""

import pytest

from tests.hostile_server import HostileServer
from tests.shapes import SHAPES, Shape, behaviour_of
from tests.workbench import Workbench, attempted
from worker.fetch.parser import HeadReader


def test_there_are_as_many_as_promised() -> None:
    assert len(SHAPES) >= 120
    assert len({each.name for each in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda each: each.name)
def test_a_shape_comes_to_its_outcome(bench: Workbench, shape: Shape) -> None:
    with HostileServer(behaviour_of(shape)) as server:
        outcome = attempted(bench.verifier(), server.url)
    status, code, fault = outcome.verdict
    assert (code or status) == shape.outcome, outcome.registration.failure
    assert fault == ({"artifact-missing": "submitter", "registered": None}.get(shape.outcome, "upstream"))
    if status == "registered" and shape.then:
        assert len(server.requests) == 2


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_parser_says_the_same_for_every_cut(size: int) -> None:
    for shape in SHAPES:
        filled = shape.head.replace("{n}", "800").replace("{e}", "9").replace("{there}", "/there")
        head = (filled.strip("\n").replace("\n", shape.line_end) + shape.line_end * 2).encode("latin-1")
        whole, cut = HeadReader(), HeadReader()
        expected = whole.feed(head)
        pieces = [cut.feed(head[start : start + size]) for start in range(0, len(head), size)]
        assert expected is not None, shape.name
        assert pieces[-1] == expected, shape.name
