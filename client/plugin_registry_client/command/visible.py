"""Text that a terminal shows and does not obey."""

import re

_SEEN_BY_NOBODY = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that Unicode calls Default_Ignorable_Code_Point; all else that is not seen is not printable."""


def visible(text: str) -> str:
    r"""Return *text* with what is hidden in it as an escape, such as ``\x1b`` or ``\u202e``."""
    if text.isprintable() and not _SEEN_BY_NOBODY.search(text):
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() and not _SEEN_BY_NOBODY.match(character):
        return character
    return character.encode("unicode_escape").decode("ascii")
