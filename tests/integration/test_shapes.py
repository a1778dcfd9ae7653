"""Every recorded shape of an answer passes through the parser in any cut, and the whole path to its outcome."""

import pytest

from shared.registration import Registration
from tests.contracts import now
from tests.hostile_server import HostileServer
from tests.shapes import SHAPES, every_shape
from tests.workbench import Workbench, queued
from worker.fetch.parser import HeadReader


def test_there_are_as_many_as_promised() -> None:
    assert len(SHAPES) >= 120
    assert len({each.name for each in SHAPES}) == len(SHAPES)


@pytest.fixture(scope="module")
def ended(bench: Workbench) -> list[Registration]:
    """Return what became of a registration of each shape; all were verified together."""
    with HostileServer(every_shape) as server:
        verifier = bench.verifier()
        queue = [queued(verifier, server.url_of(server.address, f"/{number}")) for number in range(len(SHAPES))]
        verifier.verify(*(each.id for each in queue))
    return [now(verifier.store, each.id) for each in queue]


@pytest.mark.parametrize("number", range(len(SHAPES)), ids=lambda number: SHAPES[number].name)
def test_a_shape_comes_to_its_outcome(ended: list[Registration], number: int) -> None:
    status, failure, outcome = ended[number].status, ended[number].failure, SHAPES[number].outcome
    assert status.final
    assert (failure.code if failure else status) == outcome, failure
    fault = None if outcome == "registered" else "submitter" if outcome == "artifact-missing" else "upstream"
    assert (failure.fault if failure else None) == fault


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
