"""What is hidden in a text: held against Unicode's own properties, as Python has them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.characters import called, refuse_hidden, visible

PLAIN = [chr(n) for n in range(0x20, 0x7F)]
BIDI = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
ZERO_WIDTH = [*"\u00ad\u034f\u115f\u180e\u200b\u200c\u200d\u2060\u2064\u3164\ufe0f\ufeff\uffa0\U000e0041\U000e0100"]
LINES = [*"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"]
TERMINALS = [*"\x00\x07\x08\t\x1b\x7f\x80\x9b\x9d"]
SURROGATES = ["\ud800", "\udfff"]
SEEN_FORMATS = {*map(chr, range(0x600, 0x606)), *"\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"} | {
    *map(chr, range(0x13430, 0x13440))
}
"""Of category Cf, and yet they have a glyph, or stand between hieroglyphs."""


@pytest.mark.parametrize("character", [*BIDI, *ZERO_WIDTH, *LINES, *TERMINALS, *SURROGATES], ids=ascii)
def test_what_is_hidden_is_shown_by_its_number_and_refused(character: str) -> None:
    shown = visible(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert shown == f"a{character.encode('unicode_escape').decode()}b"
    with pytest.raises(ValueError, match=f"U\\+{ord(character):04X}"):
        refuse_hidden(f"a{character}b")


def test_every_control_format_separator_and_surrogate_of_unicode_is_hidden() -> None:
    everything = map(chr, range(0x110000))
    found = {each for each in everything if unicodedata.category(each) in {"Cc", "Cf", "Zl", "Zp", "Cs"}}
    assert {each for each in found - SEEN_FORMATS if visible(each) == each} == set()


@pytest.mark.parametrize("text", ["", "".join(PLAIN), "Größe 日本語 עברית … ✔ 😀", "a\u00a0b", "\\x1b"])
def test_what_is_seen_stays_as_it_is(text: str) -> None:
    assert visible(text) == refuse_hidden(text) == text


@given(st.text())
def test_nothing_hidden_is_left_and_showing_twice_changes_nothing(text: str) -> None:
    shown = visible(text)
    assert refuse_hidden(shown) == visible(shown) == shown
    assert len(shown.splitlines()) <= 1


def test_a_character_is_called_by_its_number_and_name() -> None:
    assert called("\u202e") == "U+202E (RIGHT-TO-LEFT OVERRIDE)"
    assert called("\x1b") == "U+001B"
    assert called("\U000e0041") == "U+E0041 (TAG LATIN CAPITAL LETTER A)"
    assert called("\ud800") == "U+D800"
