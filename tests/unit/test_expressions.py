"""No expression that meets a stranger's text needs more than linear time (invariant 14, H1 of the hostile cases).

Every one in the product is found in its source and must be in the table below, with what to try it on. A quarter of a
mebibyte is 2^18 characters: an expression that is quadratic takes some 2^35 steps for it, one that is exponential
never ends, and the limit, by the CPU clock of the process that matches, is what 2^27 steps take at most.
"""

import ast
import importlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.bounded import within_cpu_s

ROOT = Path(__file__).parent.parent.parent
LENGTH = 256 * 1024
CPU_S = 1.0
"""For one input."""
_USES = ("match", "fullmatch", "search", "findall", "finditer", "sub", "split")


@dataclass(frozen=True)
class Tried:
    """What an expression is tried on: each of *begins*, then runs of each of *units* and of pairs of them, to a
    near miss."""

    begins: tuple[str, ...]
    units: tuple[str, ...]

    def inputs(self) -> Iterator[str]:
        runs = {*self.units, *("".join(pair) for pair in product(self.units, repeat=2))}
        for begin, run in product(("", *self.begins), sorted(runs)):
            text = begin + run * ((LENGTH - len(begin)) // len(run))
            for end in ("", "\0", "\nX\nY"):
                yield text + end


# file and name of the expression -> what to try it on
TRIED = {
    "api/http/prefer.py _NAME_AND_VALUE": Tried(("a", "a=", 'a="'), ("a", " ", "=", '"', "\\", ";", "\\a")),
    "api/http/prefer.py _PREFERENCES": Tried(('"',), ("a", ",", '"', "\\", ' "a\\"')),
    "api/http/paging.py _RFC3339": Tried(
        ("2026-01-15T08:00:00.", "2026-01-15T08:00:00Z"), ("0", ".", "Z", "2026-01-15T08:00:00")
    ),
    "shared/store/hot.py _PLACEHOLDER": Tried((":", ":a"), ("a", ":", ":a")),
    "api/http/strict_json.py _SURROGATE": Tried((), ("a", "\uffff")),
    "api/dashboard/catalogue.py _HARMLESS_ENDING": Tried((".", ".tar."), (".", "a", ".tar.", ".a")),
    "api/dashboard/session.py _OURS": Tried(("/plugins", "/?"), ("/", "a", "?", "/plugins")),
    "client/plugin_registry_client/command/on_call.py _DURATION": Tried(("1",), ("1", "h", "0")),
    "client/plugin_registry_client/command/operate.py _AGO": Tried(("1",), ("1", "s")),
    "client/plugin_registry_client/command/tokens.py _DURATION": Tried(("1",), ("1", "s", "0")),
    "client/plugin_registry_client/command/login.py _NAME": Tried(("a",), ("a", ".", "-")),
    "client/plugin_registry_client/command/visible.py _SEEN_BY_NOBODY": Tried((), ("a", "\ufe00")),
    "shared/broker.py _WORD": Tried(("A", "AA", "AAA"), ("A", "_", "a")),
    "shared/egress.py _AUTHORITY": Tried(("[", "[:", "a:", "[:]"), ("a", ":", ".", "1", "]", "[")),
    "shared/egress.py _LABEL": Tried((), ("a", "-", "_")),
    "shared/egress.py _NEVER_IN_A_URL": Tried((), ("a", "/")),
    "shared/egress.py _NUMBER": Tried(("0x",), ("0", "f", "x")),
    "shared/egress.py _PORTS": Tried(("1", "1-"), ("1", "-")),
    "shared/egress.py _URL": Tried(("https", "https://", "https://a/"), ("a", ":", "/", "?", "#", "://", ".")),
    "shared/logs.py _QUERIES": Tried(("?",), ("a", "?", " ", "<")),
    "shared/logs.py _TOKENS": Tried(("prg_",), ("a", "prg_", "_", "prg_aaaaaaa ")),
    "shared/logs.py _URLS": Tried(("http://",), ("a", ":", "/", "://", "@", "?", "#", '"')),
    "shared/registration.py ID": Tried(("plugin-", "registration-019bc2a4-6f00-7c3e-8f6e-"), ("0", "a", "-")),
    "shared/settings.py _PREFIX": Tried(("/",), ("/", "a", "/a")),
    "shared/urls.py _STRAY_PERCENT": Tried((), ("%", "0", "%0")),
    "shared/urls.py _UNPRINTABLE": Tried((), ("a", "%")),
    "shared/fields.py NAME": Tried(("a",), ("a", " ", ".", "-", "_")),
    "shared/fields.py SEMVER": Tried(("1.0.0-", "1.0.0-a+"), ("1", "0", "a", "-", ".", "+")),
    "shared/characters.py _A_HIDDEN_ONE": Tried((), ("a", "\u2028", "\U0001d173")),
    "api/http/paging.py _CAUSE": Tried((), ("a", "0", "-")),
    "shared/fields.py CHECKSUM": Tried(("sha256:",), ("a", "0")),
    "shared/registration.py REGISTRATION_ID": Tried(("registration-019bc2a4-6f00-7c3e-8f6e-",), ("0", "a", "-")),
    "shared/fields.py _HEX_RUN": Tried((), ("a", "0", "-")),
    "shared/fields.py _SPACED": Tried(("aa",), ("aa:", "aa ", "a")),
    "shared/fields.py _BASE64_ALONE": Tried((), ("a", "=", "+")),
    "shared/fields.py _BASE64": Tried(("sha256-",), ("a", "=", "+")),
    "shared/fields.py _OTHER_NAMES": Tried(("sha",), ("sha", "-", "512", "md", "5")),
    "shared/fields.py _HEX": Tried((), ("a", "0")),
    "shared/fields.py _NOT_IN_A_SCHEMA": Tried((), ("a", "\n")),
    "shared/fields.py _SEPARATORS": Tried(("a",), ("a", " ", ".", "-", "_")),
    "shared/fields.py _SHA256": Tried((), ("a", "0")),
    "shared/store/tokens.py _FORM": Tried(("prg_",), ("a", "_", "prg_")),
    "shared/store/tokens.py PATTERN": Tried(("a",), ("a", "*", "?", " ")),
    "shared/store/tokens.py _ID": Tried((), ("a", "0", "-")),
    "worker/fetch/client.py _RESOURCE": Tried(("http://", "http://a"), ("a", ":", "/", "?", "\n")),
    "worker/digest/diagnose.py _CHECKSUM_LINE": Tried(
        ("a" * 64, "sha256:", "a" * 64 + "  ", "a" * 64 + " *", "SHA256 (", "#"),
        ("a", " ", "\t", "*", "(", ")", ") = ", "sha256:", "a" * 64 + "  "),
    ),
    "worker/digest/diagnose.py _ERROR_SENTENCE": Tried(("file ", "http "), ("a", " ", "404", "not found")),
    "worker/digest/diagnose.py _MARKUP": Tried(("<!--", "<?xml"), ("<!---->", "<!--", "-->", " ", ">", "a")),
    "worker/digest/diagnose.py _XML_ERROR": Tried(
        ("<?xml", "<?xml>", "<a:"), ("<?xml>", "<?xml ", ">", " ", "<Error", "a", ":", "<!---->")
    ),
    "worker/digest/diagnose.py _HTML": Tried(
        ("<!--", "<!---->", "<", "<!doctype"), ("<!---->", "<!--", "-->", " ", "-", "a", "<", "<html", "<!doctype ")
    ),
    "shared/explained.py _STATUS": Tried(("status-",), ("4", "a")),
    "shared/settings.py _NO_COMMENT": Tried((), ("a", "/")),
    "worker/fetch/location.py _ENCODED": Tried((), ("a", "/", "%")),
    "worker/fetch/location.py _REFERENCE": Tried(("a:", "//", "a://", "/"), ("a", ":", "/", "?", "+")),
    "worker/fetch/location.py _RESOURCE": Tried((), ("a", ":")),
    "worker/fetch/status.py _SEPARATOR": Tried((), ("a", ";", ",")),
    "worker/fetch/status.py _NUMBER": Tried(("-",), ("0", "1", ".")),
    "worker/fetch/status.py _PARAMETER": Tried(("r=", "remaining=-"), ("0", "r", "=")),
    "worker/fetch/resume.py _ANY_RANGE": Tried(("0-", "0-1/"), ("0", "-", "/", "*")),
    "worker/fetch/parser.py _CHUNK_LINE": Tried(("a", "0;"), ("a", "0", " ", "\t", ";", "\r")),
    "worker/fetch/parser.py _END_OF_HEAD": Tried((), ("\n", "\r", "\n\r", "a", "\r\n")),
    "worker/fetch/parser.py _FIELD": Tried(("a:", "a: "), ("a", ":", " ", "\t", "\r")),
    "worker/fetch/parser.py _FOLDED": Tried((" ",), ("a", " ", "\t", "\r")),
    "worker/fetch/parser.py _STATUS_LINE": Tried(("HTTP/1.1 200", "HTTP/1.1 200 "), ("0", " ", "a", "\r")),
    "worker/fetch/resume.py _CONTENT_RANGE": Tried(("bytes ", "bytes 0-", "bytes 0-1/"), ("0", "-", "/", " ")),
    "worker/fetch/resume.py _STRONG_ETAG": Tried(('"',), ("a", '"')),
}


def sources() -> Iterator[Path]:
    """Return the files of the product."""
    for package in ("api", "cli", "client", "shared", "worker"):
        yield from sorted((ROOT / package).rglob("*.py"))


def expressions_in(where: str, source: str) -> set[str]:
    """Return the file and the name of each expression that *source*, the file *where*, compiles or uses.

    One that has no name of its own at the top of a file, or comes by another way than ``import re``, is returned as
    what it is, which no table holds. What stands in the API's document only is left out: no text meets it here.
    """
    tree = ast.parse(source)
    named, homes = set(), dict[str, str]()
    for node in tree.body:
        if isinstance(node, ast.Assign) and _calls_re(node.value) == "compile" and len(node.targets) == 1:
            named.add(node.value)
        for target in getattr(node, "targets", ()):
            homes[ast.unparse(target)] = where
        if isinstance(node, ast.ImportFrom) and node.module:
            homes |= {each.asname or each.name: f"{node.module.replace('.', '/')}.py" for each in node.names}
    found = {
        f"{where} {ast.unparse(node)}"
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and node.module in {"re", "sre_compile", "regex"})
        or (isinstance(node, ast.Import) and any(each.name == "re" and each.asname for each in node.names))
        or (_calls_re(node) == "compile" and node not in named)
    }
    used = [node.args[0] for node in ast.walk(tree) if isinstance(node, ast.Call) and _calls_re(node) in _USES]
    used += [
        node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in {"pattern", "regex"}
    ]
    compiled = [node.targets[0] for node in tree.body if isinstance(node, ast.Assign) and node.value in named]
    return found | {f"{homes.get(ast.unparse(each), where)} {ast.unparse(each)}" for each in (*used, *compiled)}


def _calls_re(node: ast.AST) -> str | None:
    """Return the name of the function of `re` that *node* calls, if it does."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        return node.func.attr if isinstance(owner, ast.Name) and owner.id == "re" else None
    return None


def test_every_expression_of_the_product_is_tried_here() -> None:
    found = set[str]()
    for file in sources():
        found |= expressions_in(str(file.relative_to(ROOT)), file.read_text())
    assert found == set(TRIED)


@pytest.mark.parametrize(
    "source",
    [
        '_URL = re.compile(r"(a+)+$")',
        '_ALL = [re.compile(r"(a+)+$")]',
        '_X: re.Pattern[str] = re.compile(r"(a+)+$")',
        "from re import compile as made",
        "import re as r",
        'def f(text): return re.compile(r"(a+)+$").search(text)',
        'def f(text): return re.search(r"(a+)+$", text)',
        'def f(text):\n    _URL = re.compile(r"(a+)+$")\n    return _URL.search(text)',
        'Text = Annotated[str, Field(pattern=r"(a+)+$")]',
    ],
)
def test_an_expression_that_is_added_is_found_however_it_is_written(source: str) -> None:
    assert expressions_in("api/new.py", source) - set(TRIED)


def uses_of(file: Path, name: str) -> set[str]:
    """Return the methods by which the expression *name* of *file* is used, or those who import it use it."""
    used = re.compile(rf"\b{name}\.(\w+)\(|\bre\.(\w+)\({name}\b")
    found = {
        method
        for each in (sources() if not name.startswith("_") else [file])
        for methods in used.findall(each.read_text())
        for method in methods
        if method
    }
    return found or {"search"}  # as pydantic uses a pattern


def match_all(pattern: str | bytes, flags: int, uses: set[str], tried: Tried) -> None:
    expression: Any = re.compile(pattern, flags)
    for text in tried.inputs():
        signal.setitimer(signal.ITIMER_PROF, CPU_S)  # each begins anew
        subject = text.encode() if isinstance(pattern, bytes) else text
        for use in uses:
            if use == "sub":
                expression.sub(pattern[:0], subject)
            else:
                getattr(expression, use)(subject)


@pytest.mark.parametrize("where", TRIED)
def test_an_expression_needs_no_more_than_linear_time(where: str) -> None:
    file, _, name = where.partition(" ")
    expression = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    pattern, flags = (expression, 0) if isinstance(expression, str) else (expression.pattern, expression.flags)
    within_cpu_s(CPU_S, match_all, pattern, flags, uses_of(ROOT / file, name), TRIED[where])


@pytest.mark.parametrize(
    ("pattern", "use", "tried"),
    [
        (rb"\s*(?:<!--.*?-->\s*)*<(?:html|head)\b", "match", TRIED["worker/digest/diagnose.py _HTML"]),
        (
            rb"[0-9a-f]{64}(?:\s+[* ]?[^\r\n]{1,255})?\s*",
            "fullmatch",
            TRIED["worker/digest/diagnose.py _CHECKSUM_LINE"],
        ),
        (r'(?:[^,"]|"(?:[^"\\]|\\.)*")+', "findall", TRIED["api/http/prefer.py _PREFERENCES"]),
        (r"\s+$", "search", Tried((), (" ",))),
    ],
    ids=["exponential", "quadratic, three runs", "quadratic, found again", "quadratic, searched"],
)
def test_one_that_needs_more_is_found(pattern: str | bytes, use: str, tried: Tried) -> None:
    with pytest.raises(AssertionError, match="CPU time"):
        within_cpu_s(CPU_S, match_all, pattern, re.DOTALL, {use}, tried)
