"""Characters that nobody sees, and those that make what is seen untrue.

Terminals act on control characters, bidirectional ones put what follows in another order, and zero-width ones make
two texts look alike. They are refused in a text of one line, and shown by their numbers where they come from outside.

Hidden are: controls (C0, DEL, C1); what Unicode calls Default_Ignorable_Code_Point in DerivedCoreProperties.txt, as
it does all of Bidi_Control and the zero-width ones; line and paragraph separators; interlinear annotation; and lone
surrogates, which are no characters and cannot be written.
"""

import re
import unicodedata

_HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
_BEYOND = r"\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
_A_HIDDEN_ONE = re.compile(f"[{_HIDDEN}{_BEYOND}]")
NO_HIDDEN = f"^[^{_HIDDEN}]*$"
"""For the API's document. Those beyond U+FFFF are refused too, but no pattern names them alike in every language."""


def visible(text: str) -> str:
    r"""Return *text* with what is hidden in it as an escape, such as ``\x1b`` or ``\u202e``."""
    return _A_HIDDEN_ONE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def refuse_hidden(text: str) -> str:
    """Return *text*, in which nothing is hidden.

    Raises:
        ValueError: something is; the message names the first.
    """
    if found := _A_HIDDEN_ONE.search(text):
        raise ValueError(f"must not hold {called(found[0])}, which is not seen")
    return text


def called(character: str) -> str:
    """Return what Unicode calls *character*: its number, and its name where it has one."""
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X}" + (f" ({name})" if name else "")
