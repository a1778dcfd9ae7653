"""Where a redirect leads: its Location, resolved as RFC 3986 section 5.2 says, and left as it is otherwise.

Hosts send what no URL may hold, and browsers and curl encode that: a space, bytes beyond ASCII, and quotes, angle
brackets, carets, backquotes, braces and bars. So does this, and egress judges the result, which is also what is asked
for. Whatever two readers could take differently stays as it was sent, and egress refuses it: a backslash, a tab, an
encoded host. A URL goes out byte for byte: `urllib` would drop an empty query, and parameters, from it.
"""

import re

_ENCODED = re.compile(r'[ "<>^`{|}\x80-\xff]')
_RESOURCE = re.compile(r"[/?]")
# RFC 3986 appendix B; a fragment is cut off before.
_REFERENCE = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*+):)?(?://(?P<authority>[^/?]*+))?(?P<path>[^?]*+)")


def resolved(base: str, location: str) -> str:
    """Return where *location*, a field's bytes as latin-1, leads from *base*, an absolute URL. Without a fragment."""
    reference = _ENCODED.sub(_percent, location.partition("#")[0])
    parts = _REFERENCE.match(reference)
    assert parts is not None  # noqa: S101  # every part may be missing
    if parts["scheme"] is not None:
        return reference
    scheme, _, rest = base.partition("://")
    if parts["authority"] is not None:
        return f"{scheme}:{reference}"
    resource = _RESOURCE.search(rest)
    authority = rest[: resource.start()] if resource else rest
    base_path, question, base_query = rest[len(authority) :].partition("?")
    query = reference[parts.end("path") :]
    if not parts["path"]:
        return f"{scheme}://{authority}{base_path}{query or question + base_query}"
    path = parts["path"] if parts["path"].startswith("/") else f"{base_path.rpartition('/')[0]}/{parts['path']}"
    return f"{scheme}://{authority}{_without_dots(path)}{query}"


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _without_dots(path: str) -> str:
    """Return *path*, which begins with a slash, without ``.`` and ``..`` (RFC 3986 section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments, 1):
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
        if segment in {".", ".."} and place == len(segments):
            kept.append("")
    return "/" + "/".join(kept)
