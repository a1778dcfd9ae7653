"""Who waits in a worker: submitters take turns, targets do not block each other, nobody fills the room."""

from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from shared.egress import Target
from shared.registration import RegistrationId
from worker.room import Entry, Room

HERE, THERE = Target("https", "here.example", 443), Target("https", "there.example", 443)
_numbers = count()


def entry(submitted_by: str = "a", target: Target | None = HERE) -> Entry:
    return Entry(RegistrationId(f"registration-{next(_numbers)}"), submitted_by, target)


def everybody(room: Room) -> list[Entry]:
    return list(iter(lambda: room.next(lambda _target: True), None))


def test_submitters_take_turns() -> None:
    room = Room()
    for each in [entry("a") for _ in range(1500)] + [entry("b"), entry("b"), entry("c")]:
        room.put(each)
    assert [each.submitted_by for each in everybody(room)][:7] == ["a", "b", "c", "a", "b", "a", "a"]


def test_of_one_submitter_and_target_the_first_to_come_is_the_first_to_go() -> None:
    room, entries = Room(), [entry() for _ in range(10)]
    for each in entries:
        room.put(each)
    assert everybody(room) == entries


def test_a_target_without_a_slot_holds_up_no_other() -> None:
    room = Room()
    blocked, free = [entry(target=HERE) for _ in range(3)], entry(target=THERE)
    for each in (*blocked, free):
        room.put(each)
    assert room.next(lambda target: target != HERE) == free
    assert room.next(lambda target: target != HERE) is None
    assert everybody(room) == blocked


def test_a_submitter_has_as_much_as_is_left_for_others() -> None:
    room = Room(places=12)
    came = Counter[str]()
    for submitter in "aaaaaaaaaabbbbbbbbbbcccccccccc":
        if room.fits(submitter):
            room.put(entry(submitter))
            came[submitter] += 1
    assert came == {"a": 6, "b": 3, "c": 2}
    assert room.fits("d")


def test_who_leaves_makes_room() -> None:
    room = Room(places=2)
    room.put(entry())
    assert not room.fits("a")
    assert room.next(lambda _target: True)
    assert room.fits("a")
    assert not room._lines
    assert not room._waiting


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([HERE, THERE, None])) | st.none()))
def test_everybody_who_came_goes_once(coming: list[tuple[str, Target | None] | None]) -> None:
    """None stands for one that goes."""
    room, came, gone = Room(), list[Entry](), list[Entry]()
    for each in coming:
        if each is None:
            if one := room.next(lambda target: target != HERE):
                gone.append(one)
        else:
            came.append(entry(*each))
            room.put(came[-1])
        assert len(room) == len(came) - len(gone)
        assert set(room) == {each.id for each in came} - {each.id for each in gone}
    assert all(each.target != HERE for each in gone)
    assert Counter(gone + everybody(room)) == Counter(came)
    assert len(room) == 0


def test_what_is_cleared_is_gone() -> None:
    room, entries = Room(), [entry("a"), entry("b", None)]
    for each in entries:
        room.put(each)
    assert sorted(room.clear()) == sorted(each.id for each in entries)
    assert room.next(lambda _target: True) is None
    assert entries[0].id not in room
