"""What a status says: the artifact is here, it is not, or later; and to whom to turn for the rest.

A server that says "later", in any of the ways in which servers do, is busy, and is asked again. What says that there
is nothing here for us is final, and each such status has a sentence of its own, which tells what to do.
"""

import re
from email.utils import parsedate_to_datetime
from time import time

from shared.errors import ArtifactMissing, BadResponse, RegistryError, UpstreamBusy
from worker.fetch.parser import Head

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({202, 408, 425, 429, *range(500, 600)})
_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{0,6})?")
_SEPARATOR = re.compile("[;,]")
# Of the drafts of RateLimit fields: what remains, and in how many seconds there is more, of one of several policies.
_PARAMETER = re.compile(r"(r|remaining|t|reset)=(-?[0-9]{1,12})")
_USED_UP = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")
_RESETS = ("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset")
_A_MOMENT = 10**9
"""A reset of more than this is a moment since the epoch, as GitHub and GitLab have it; else it is in seconds."""

_NOT_PUBLISHED = "there is nothing. Is it published only now? Then send this again; else correct the URL."
_NOT_FOR_US = (
    "it wants a log-in, or refuses who asks: this registry sends no credentials, and calls itself {agent}. Serve "
    "the artifact to that without a log-in, or use a signed URL; one that has expired is refused so, too."
)
_SENTENCES = {
    400: "it does not understand this URL: is its query complete, its signature in date?",
    401: _NOT_FOR_US,
    402: "it wants to be paid, or a quota of whoever owns the artifact is used up there.",
    403: _NOT_FOR_US,
    404: _NOT_PUBLISHED,
    405: "it does not let this be read with GET: the URL is not that of a file.",
    406: "it has nothing to give to who takes anything: its configuration is broken.",
    407: "a proxy before it wants a log-in, which the registry's operators would have to give it.",
    409: "the artifact is not in a state in which it can be read: is it being written, or archived?",
    410: _NOT_PUBLISHED,
    411: "it wants a length of a request that has no body: its configuration is broken.",
    412: "it made a condition of something that was not sent: its configuration is broken.",
    413: "it finds a request without a body too large: its configuration is broken.",
    414: "the URL is too long for it.",
    415: "it wants another kind of request: the URL is not that of a file.",
    416: "it was asked for the whole and says that there is no such part of it.",
    417: "it cannot meet what it was not asked: its configuration is broken.",
    418: "it takes this registry for a robot that it does not serve; the registry calls itself {agent}.",
    421: "it does not serve this host name at this address: its certificate or its proxy leads to another.",
    422: "it understands the request and refuses it: is the URL that of a file?",
    423: "the artifact is locked there: unlock it, then send this again.",
    426: "it wants another protocol than HTTP/1.1.",
    428: "it wants a condition, to overwrite nothing: the URL is not one to read from.",
    431: "it takes no request as long as this one: shorten the URL.",
    451: "it must not serve this here, for reasons of law: choose another host.",
}
_NO_CONTENT = "and no content: the URL is not that of a file."
_UNUSABLE = {
    201: "which says that something was made, to a request that only reads.",
    203: "which says that a proxy changed the content on its way.",
    204: _NO_CONTENT,
    205: _NO_CONTENT,
    206: "a part, though the whole was asked for.",
    300: "a choice of several: use the URL of one of them.",
    304: "which says that nothing has changed, to who has nothing.",
}


def refusal(head: Head, *, partial: bool, agent: str) -> RegistryError | None:
    """Return what *head* says instead of giving the artifact; None where it does give it.

    To a request for a part (*partial*), 206 gives it, and whatever refuses the part says nothing of the artifact,
    unless it says later: then None is returned, too, and the whole is to be asked for. *agent* is what we call
    ourselves.
    """
    status = head.status
    if status == 200 or (partial and status == 206):
        return None
    if partial and 500 <= status < 600 and not head.value("retry-after"):
        return None
    if later := _later(head):
        return later
    if partial:
        return None
    answered = f"The artifact's host answered {status}"
    if 400 <= status < 500:
        sentence = _SENTENCES.get(status, "the artifact must be there, and open to this registry.")
        return ArtifactMissing(f"{answered}: {sentence.format(agent=agent)}", cause=f"status-{status:03}")
    sentence = _UNUSABLE.get(status, "and only 200 with the whole artifact counts.")
    return BadResponse(f"{answered}, {sentence}", cause=f"status-{status:03}")


def _later(head: Head) -> UpstreamBusy | None:
    """Return that *head* puts us off, if it does."""
    status, retry_after = head.status, head.value("retry-after")
    used_up = 400 <= status < 500 and _is_used_up(head)
    if status not in _BUSY and not retry_after and not used_up:
        return None
    waits_s = retry_after_s(retry_after) if retry_after else _reset_s(head) if used_up else None
    why, cause = "it is busy or failing, which may pass", f"status-{status}"
    if status not in _BUSY:
        why, cause = ("no more requests for now", "rate-limited") if used_up else ("later", "said-later")
    return UpstreamBusy(
        f"The artifact's host answered {status}: {why}. If it stays so, its operators have to look.",
        cause=cause,
        retry_after_s=waits_s,
    )


def _is_used_up(head: Head) -> bool:
    for value in filter(None, map(head.value, _USED_UP)):
        remains = _NUMBER.match(value)
        if remains is not None and float(remains[0]) <= 0:
            return True
    return any(name in {"r", "remaining"} and int(number) <= 0 for name, number in _parameters_of(head))


def _parameters_of(head: Head) -> list[tuple[str, str]]:
    found = (_PARAMETER.fullmatch(each.strip()) for each in _SEPARATOR.split(head.value("ratelimit")))
    return [(each[1], each[2]) for each in found if each is not None]


def _reset_s(head: Head) -> float | None:
    resets = next(filter(None, map(head.value, _RESETS)), "")
    reset = _NUMBER.match(resets)
    text = (
        reset[0] if reset else next((number for name, number in _parameters_of(head) if name in {"t", "reset"}), "")
    )
    if not text:
        return None
    return max(0.0, float(text) - time()) if float(text) > _A_MOMENT else max(0.0, float(text))


def retry_after_s(value: str) -> float | None:
    """Return the seconds in a Retry-After field (RFC 9110 section 10.2.3), if it holds any."""
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError):
        return None
