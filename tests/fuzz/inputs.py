"""What a stranger might send: valid texts, bent in the ways that have broken parsers.

An input is a function of its random generator alone, so that a seed and a number are enough to have it again.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol

MAX_BYTES = 256 * 1024
LINE_BYTES = 60_000
"""Just below what most parsers take for a line, a head or a body."""

ODD = (
    *(bytes([byte]) for byte in b"\r\n\t\0\x0b\x0c\x1b \x7f\x80\x85\xa0\xff\"'\\"),
    b"\r\n",
    b"\r\n\r\n",
    b"\r\r\n",
    *(text.encode() for text in ("\u00b2", "\u0661", "\u0130", "\u2028", "\u202e", "\ufeff", "\ufffd", "\U0001f600")),
    b"\xed\xa0\x80",  # a lone surrogate, as a text that was decoded leniently holds it
    b"%00",
    b"%0d%0a",
    b"%ff",
    b"\\u0000",
    b"\\ud800",
)
NUMBERS = (
    *(str(number).encode() for number in (-1, 0, 1, 2**31, 2**32, 2**63, 2**64, 10**19)),
    b"9" * 400,
    b"9" * 5000,
    b"+200",
    b"1_0",
    b"0x10",
    b"1e999",
    b"-0",
    b"1.5",
    b"007",
)
_TOKEN = re.compile(rb"[A-Za-z]+|[0-9]+|\s+|[^A-Za-z0-9\s]")
_VALUE = re.compile(rb"[:=] ?([^\r\n]*)")
_NUMBER = re.compile(rb"[0-9]+")


class Maker(Protocol):
    """Makes inputs of a random generator; *valid* are some that nothing is wrong with."""

    @property
    def valid(self) -> tuple[bytes, ...]: ...

    def __call__(self, random: Random, /) -> bytes: ...


Way = Callable[["Bent", Random, bytes], bytes]
"""To bend a text."""


@dataclass(frozen=True)
class Bent:
    """Makes inputs by bending one of *valid*, with *words* of its grammar beside those that it holds already."""

    valid: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    piece: Callable[[Random], bytes] | None = None
    """Makes what takes more than a word to be wrong."""

    def __call__(self, random: Random) -> bytes:
        """Return the next input."""
        text = random.choice(self.valid)
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5, 8))):
            text = self.bend(random, text)
        return text

    def bend(self, random: Random, text: bytes) -> bytes:
        """Return *text* with one more thing wrong in it, of at most `MAX_BYTES`."""
        way: Way = random.choice(_WAYS)
        return way(self, random, text)[:MAX_BYTES]

    def word(self, random: Random, text: bytes) -> bytes:
        """Return a piece that may stand in *text*: of the grammar, of another valid text, or odd."""
        where = random.random()
        if where < 0.1 and self.piece is not None:
            return self.piece(random)
        if where < 0.35 and self.words:
            return random.choice(self.words)
        if where < 0.75:
            source = random.choice((text, random.choice(self.valid)))
            start, end = _token(random, source)
            return source[start:end] or b" "
        return random.choice(NUMBERS if where > 0.95 else ODD)

    def unit(self, random: Random, text: bytes) -> bytes:
        """Return what may be repeated: a few words in a row, or a slice of *text*."""
        if random.random() < 0.2:
            start, end = _slice(random, text)
            return text[start : min(end, start + 200)] or b" "
        return b"".join(self.word(random, text) for _ in range(random.choice((1, 1, 2, 2, 3, 4))))


def _token(random: Random, text: bytes) -> tuple[int, int]:
    """Return where a token of *text*, not far from its beginning, begins and ends."""
    found = _TOKEN.search(text, random.randrange(min(len(text), 4096) + 1))
    return found.span() if found else (len(text), len(text))


def _place(random: Random, text: bytes) -> int:
    """Return where in *text* something may be put: before or behind a token as a rule, or anywhere."""
    if random.random() < 0.2:
        return random.randint(0, len(text))
    return random.choice((0, len(text), *_token(random, text), *_token(random, text)))


def _slice(random: Random, text: bytes) -> tuple[int, int]:
    start, end = sorted((_place(random, text), _place(random, text)))
    return start, end


def _count(random: Random, unit: bytes) -> int:
    """Return how often *unit* is repeated: a few times as likely as many, or as often as fits into a usual limit."""
    room = random.choice((MAX_BYTES, MAX_BYTES, LINE_BYTES))
    most = max(2, room // max(1, len(unit)))
    return most if random.random() < 0.25 else int(2 ** random.uniform(1, most.bit_length()))


def _insert(bent: Bent, random: Random, text: bytes) -> bytes:
    at = _place(random, text)
    return text[:at] + bent.unit(random, text) + text[at:]


def _replace(bent: Bent, random: Random, text: bytes) -> bytes:
    start, end = _slice(random, text)
    return text[:start] + bent.word(random, text) + text[end:]


def _replace_token(bent: Bent, random: Random, text: bytes) -> bytes:
    start, end = _token(random, text)
    return text[:start] + bent.word(random, text) + text[end:]


def _renumber(_bent: Bent, random: Random, text: bytes) -> bytes:
    found = _NUMBER.search(text, random.randrange(min(len(text), 4096) + 1))
    start, end = found.span() if found else (len(text), len(text))
    return text[:start] + random.choice(NUMBERS) + text[end:]


def _delete(_bent: Bent, random: Random, text: bytes) -> bytes:
    start, end = _slice(random, text)
    return text[:start] + text[end:]


def _end_early(_bent: Bent, random: Random, text: bytes) -> bytes:
    return text[: _place(random, text)]


def _repeat(bent: Bent, random: Random, text: bytes) -> bytes:
    """A run of what a quantifier takes, and behind it what it does not."""
    at, unit = _place(random, text), bent.unit(random, text)
    run = unit * _count(random, unit)
    rest = random.choice((text[at:], b"", bent.word(random, text)))
    return (text[:at] + run)[: MAX_BYTES - len(rest)] + rest


def _fill(bent: Bent, random: Random, text: bytes) -> bytes:
    """A value, up to the end of its line, that is a run of something, quoted perhaps."""
    found = _VALUE.search(text, random.randrange(min(len(text), 4096) + 1)) or _VALUE.search(text)
    if found is None:
        return _repeat(bent, random, text)
    start, end = found.span(1)
    unit = bent.unit(random, text)
    keep = random.randint(0, end - start) if random.random() < 0.5 else 0
    quoted = random.choice((b"%s", b"%s", b'"%s"', b'"%s', b'%s"', b'; a="%s"'))
    return text[: start + keep] + quoted % (unit * _count(random, unit)) + text[end:]


def _nest(bent: Bent, random: Random, text: bytes) -> bytes:
    start, end = _slice(random, text)
    opened, closed = bent.unit(random, text), bent.unit(random, text)
    count = _count(random, opened + closed)
    return text[:start] + opened * count + text[start:end] + closed * count + text[end:]


def _splice(bent: Bent, random: Random, text: bytes) -> bytes:
    other = random.choice(bent.valid)
    return text[: _place(random, text)] + other[_place(random, other) :]


def _double(_bent: Bent, random: Random, text: bytes) -> bytes:
    """A line, field or member that is there twice."""
    lines = text[:8192].splitlines(keepends=True) or [b"\n"]
    at = random.randrange(len(lines))
    return b"".join([*lines[: at + 1], *lines[at:], text[8192:]])


def _flip(_bent: Bent, random: Random, text: bytes) -> bytes:
    changed = bytearray(text or b"\0")
    for _ in range(random.choice((1, 1, 4, 16))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


_WAYS: tuple[Way, ...] = (
    _insert,
    _insert,
    _replace,
    _replace_token,
    _replace_token,
    _renumber,
    _delete,
    _end_early,
    _repeat,
    _repeat,
    _fill,
    _fill,
    _nest,
    _splice,
    _double,
    _flip,
)


# --- parameters of a header, which may be quoted, continued and encoded (RFC 2231) -----------------


def parameters(random: Random) -> bytes:
    """Return parameters such as `; charset*0*=utf-8''a; q="b"`, several of one name as a rule."""
    names = random.sample((b"charset", b"boundary", b"q", b"wait"), random.choice((1, 1, 2)))
    return b"".join(
        b"%s%s%s=%s"
        % (
            random.choice((b"; ", b";", b",")),
            random.choice(names),
            random.choice((b"", b"", b"*", b"*0", b"*0*", b"*1", b"*%s" % random.choice(NUMBERS), b" ")),
            random.choice((b"a", b'"a"', b'"a', b"utf-8''a", b"utf-8''%ff", b"%00''a", b"punycode''a", b"x''", b"")),
        )
        for _ in range(random.choice((1, 2, 2, 3, 5)))
    )


@dataclass(frozen=True)
class BentHead:
    """Makes messages in which the value of one header is bent, by its own grammar; or anything."""

    whole: Bent
    values: Mapping[bytes, Bent]
    end: bytes
    """Of a line."""

    @property
    def valid(self) -> tuple[bytes, ...]:
        return self.whole.valid

    def __call__(self, random: Random) -> bytes:
        """Return the next input."""
        if random.random() < 0.4:
            return self.whole(random)
        first, _, rest = random.choice(self.valid).partition(self.end)
        name = random.choice([*self.values])
        others = [each for each in rest.split(self.end) if not each.lower().startswith(name.lower() + b":")]
        made = self.end.join([first, name + b": " + self.values[name](random), *others])
        return (self.whole.bend(random, made) if random.random() < 0.1 else made)[:MAX_BYTES]


@dataclass(frozen=True)
class BentDocument:
    """Makes JSON documents of which some members are bent, each by its own grammar."""

    document: Mapping[str, str]
    members: Mapping[str, Maker]
    whole: Bent

    @property
    def valid(self) -> tuple[bytes, ...]:
        return (json.dumps(self.document).encode(),)

    def __call__(self, random: Random) -> bytes:
        """Return the next input."""
        document = dict(self.document)
        for name in random.sample([*self.members], random.choice((0, 1, 1, 2))):
            document[name] = self.members[name](random).decode("utf-8", "surrogateescape")
        text = json.dumps(document, ensure_ascii=random.random() < 0.8).encode("utf-8", "surrogatepass")
        return self.whole.bend(random, text) if random.random() < 0.5 else text[:MAX_BYTES]
