"""Every code and every cause, explained: what happened, and what to do. Their pages and the command line show this.

Whose fault it is stands with the code, in `shared/errors.py` and `api/http/problems.py`: it is decided by who wrote
the bytes. *submitter*: the URL and the digest as declared, and what is behind the URL though it is stable and
well-formed. *upstream*: all that a host sent that was broken, temporary or contradictory, its redirects included.
*registry*: ours.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_STATUS = re.compile(r"status-([0-9]{3})")


@dataclass(frozen=True)
class Explained:
    """One code, or one cause of it: sentences for a person. *code* is the one that it belongs to."""

    word: str
    code: str
    happened: str
    to_do: str


@lru_cache(1024)
def explained(word: str) -> Explained | None:
    """Return the explanation of *word*, a code or a cause; None where it is neither."""
    if found := _STATUS.fullmatch(word):
        return _status(word, int(found[1]))
    if word in _CODES:
        return Explained(word, word, *_CODES[word])
    return next((Explained(word, code, *causes[word]) for code, causes in _CAUSES.items() if word in causes), None)


def causes_of(code: str) -> list[str]:
    """Return the causes of *code* that are known by a word of their own."""
    return sorted(_CAUSES.get(code, ()))


CODES_WITH_A_STATUS = frozenset({"artifact-missing", "bad-response", "upstream-busy"})
"""Those whose cause may be the status that a host answered: ``status-404``."""


def codes() -> list[str]:
    """Return every code."""
    return list(_CODES)


def _status(word: str, status: int) -> Explained:
    code = (
        "upstream-busy"
        if status in {202, 408, 425, 429} or 500 <= status < 600
        else "artifact-missing"
        if 400 <= status < 500
        else "bad-response"
    )
    happened, to_do = _CODES[code]
    return Explained(word, code, f"The artifact's host answered with the status {status}. {happened}", to_do)


# code -> what happened, what to do
_CODES = {
    # of an artifact
    "digest-mismatch": (
        "The registry downloaded the whole artifact, and its SHA-256 is not the declared one.",
        (
            "Compare `declared` and `computed`. The cause says what was most likely served, or hashed, instead. "
            "Correct the checksum or the URL and send the registration again."
        ),
    ),
    "artifact-missing": (
        "The host answered that there is no artifact for this registry at the URL.",
        "Open the URL without a log-in, from another network. Correct it, or publish the artifact first.",
    ),
    "artifact-too-large": (
        "The artifact has more bytes than this registry takes.",
        "Publish a smaller one, or have the operators raise REGISTRY_MAX_ARTIFACT_BYTES.",
    ),
    "host-not-found": (
        "The name system says for certain that the host does not exist.",
        "Correct the host's name. If it was made only now, send the registration again in some minutes.",
    ),
    "forbidden-url": (
        "The URL breaks the rules of this registry for what may be fetched: its scheme, its port, its spelling.",
        "Write the URL as the detail says; what may be fetched is set by the operators (REGISTRY_EGRESS_*).",
    ),
    "forbidden-address": (
        "The host is, or resolves to, an address that this registry must not reach: private, local, reserved.",
        "Use a host with a public address, or have the operators allow its network (REGISTRY_EGRESS_ALLOW_NETWORKS).",
    ),
    "bad-response": (
        "The host sent an answer that breaks HTTP, contradicts itself or is no artifact.",
        "Show the detail to whoever runs the host. Use another URL until it is mended.",
    ),
    "bad-redirect": (
        "The host redirected too often, in a circle, nowhere, or to where this registry does not go.",
        "Follow the URL with `curl -IL`, and use the one at which it ends.",
    ),
    "bad-certificate": (
        "The host's TLS certificate does not prove that it is the host.",
        "Look at it with `openssl s_client -connect HOST:443 -servername HOST`, and have it mended.",
    ),
    "conflict": (
        "This name and version are registered already.",
        "Registered plugins never change: submit a new version, or use the plugin that `pluginId` names.",
    ),
    "canceled": (
        "An operator canceled the registration.",
        "Ask the operators why. The same submission may be sent again.",
    ),
    "connect-failed": (
        "No connection to the host could be made, in any of the attempts.",
        "See whether the host is up, and reachable from where the registry runs. Then send the registration again.",
    ),
    "upstream-busy": (
        "The host was failing or said later, in every attempt.",
        "Wait until it has recovered, or its limit is over, and send the registration again.",
    ),
    "truncated": (
        "The connection broke before the artifact was complete, in every attempt.",
        "See whether the host can serve the whole file, then send the registration again.",
    ),
    "read-timeout": (
        "The host stopped sending, in every attempt.",
        "See whether the host can serve the whole file, then send the registration again.",
    ),
    "deadline-passed": (
        "The download took longer than one attempt may.",
        "Use a faster host, or have the operators raise REGISTRY_FETCH_DEADLINE_S.",
    ),
    "attempts-used-up": (
        "Workers that took up the registration did not come back to finish it.",
        "Tell the operators: their logs say how those workers ended. Then send the registration again.",
    ),
    "registry-shortage": (
        "The registry had too little of something that a download takes.",
        "Tell the operators. The registration is tried again by itself; send it again if it failed.",
    ),
    # of a request
    "store-unavailable": (
        "The registry's store could not take or give what was asked.",
        "Send the same again in some seconds: what was accepted is joined, and nothing is lost.",
    ),
    "overloaded": ("This process of the registry has no connection left.", "Try again in some seconds."),
    "malformed-request": ("The request is not one that this registry understands.", "Correct what the detail names."),
    "malformed-json": ("The body is not valid JSON.", "Send the fields as one JSON object, in UTF-8."),
    "unauthorized": (
        "The request carries no valid token.",
        "Send `Authorization: Bearer prg_...`. Operators make tokens with `plugin-registry token create`.",
    ),
    "forbidden": (
        "The token does not allow this.",
        "Ask the operators for one with the scope, or the name, it needs.",
    ),
    "wrong-state": (
        "What this was to be done to is in a state that does not allow it.",
        "Look at it again: a registration has moved on. Before the last token of scope admin goes, make another.",
    ),
    "not-found": (
        "There is nothing here that this token may see.",
        "See whether the id is complete, and of this registry. Registrations are kept for a while only.",
    ),
    "events-gone": (
        "The feed of events does not go on from where it was asked to: that was too long ago, or of another store.",
        "Look at the registrations that you wait for, and read the feed anew, without `after`.",
    ),
    "method-not-allowed": ("This path does not take that method.", "See /docs for those that it takes."),
    "request-timeout": ("The request did not arrive in time.", "Send it again, without pauses."),
    "head-too-large": ("The head of the request is too large.", "Send fewer, or shorter, fields."),
    "body-too-large": (
        "The body is larger than this registry takes.",
        "Shorten configSchema, or have the operators raise REGISTRY_MAX_BODY_BYTES.",
    ),
    "unsupported-media-type": ("The body is not JSON.", "Send it as `Content-Type: application/json`."),
    "too-many-requests": ("There were too many requests.", "Wait for as long as `Retry-After` says."),
    "quota-used-up": (
        "The token has as many registrations in flight as it may have.",
        "Send this one again when some of them have ended.",
    ),
    "invalid-fields": ("Some fields, or parameters of the query, are not valid.", "Correct each of `errors`."),
    "internal-error": (
        "The registry failed in a way that it did not expect.",
        "Tell the operators: the log says more. Nothing was lost; the same may be sent again.",
    ),
}

_TELL_ITS_OPERATORS = "Tell whoever runs the host; until it is mended, use another URL."
_RAISE = "Tell the operators of the registry. The registration is tried again by itself."

# code -> cause -> what happened, what to do
_CAUSES: dict[str, dict[str, tuple[str, str]]] = {
    "digest-mismatch": {
        "different-content": (
            "The artifact is not the one whose checksum was declared, and nothing more is known.",
            (
                "Download the URL, hash it with `sha256sum` and compare: the artifact changed, or the checksum is "
                "of another file."
            ),
        ),
        "empty-body": ("The host sent a complete answer of 0 bytes.", "Publish the artifact again."),
        "git-lfs-pointer": (
            "The URL serves a Git LFS pointer, the small text file that stands for the artifact in a repository.",
            "Use the URL of the content itself, such as one that begins with media.githubusercontent.com.",
        ),
        "html-page": (
            "The URL serves an HTML page, such as a log-in or a download page.",
            "Use the URL of the file itself, and make sure that it needs no log-in.",
        ),
        "decompressed-content": (
            "The checksum is that of the decompressed content.",
            "Declare the checksum of the file as it is served, compressed.",
        ),
        "content-encoding": (
            "The host sent a compressed form though it was asked not to.",
            "Have it serve the file as it is, or declare the digest of what it serves.",
        ),
        "checksum-file": ("The URL serves a checksum file.", "Use the URL of the artifact beside it."),
        "hashed-checksum-file": (
            "The declared checksum is that of the artifact's own checksum file.",
            "Declare what stands in that file, and not its hash.",
        ),
        "line-endings": (
            "The checksum is that of the same text with other line ends.",
            "Hash the file as it is served; a checkout on Windows has other line ends.",
        ),
        "shorter-content": (
            "The checksum is that of the artifact's beginning, of as many bytes as were announced at first.",
            "Hash the file once it is whole.",
        ),
        "error-document": (
            "The URL serves an error message, with a status that says all is well.",
            "Open the URL and read it. Then correct the URL, or have the host mended.",
        ),
        "other-version-served": (
            "The URL serves the artifact of another version of this plugin.",
            "Correct the URL, or publish the new artifact first.",
        ),
        "other-version-declared": (
            "The checksum is that of another version of this plugin.",
            "Take the checksum of the new artifact.",
        ),
    },
    "bad-response": {
        "part-as-whole": (
            "The host answered 200 to a request for the whole, and said by Content-Range that it sent a part.",
            _TELL_ITS_OPERATORS,
        ),
        "malformed-head": ("The head of the answer breaks the rules of HTTP.", _TELL_ITS_OPERATORS),
        "malformed-chunks": ("The chunks of the answer break the rules of HTTP.", _TELL_ITS_OPERATORS),
        "ambiguous-framing": (
            "The answer is framed in a way that two readers could take differently.",
            _TELL_ITS_OPERATORS,
        ),
        "impossible-length": ("The length that the host announced cannot be.", _TELL_ITS_OPERATORS),
        "answer-head-too-large": (
            "The head of the answer is larger than this registry reads, 64 KiB.",
            "Have the host send fewer or shorter fields, such as cookies.",
        ),
        "interim-answers": ("The host sent more interim answers than are read.", _TELL_ITS_OPERATORS),
        "tiny-chunks": ("The host sends chunks so small that they are mostly framing.", _TELL_ITS_OPERATORS),
        "tiny-records": ("The host sends TLS records so small that they are mostly framing.", _TELL_ITS_OPERATORS),
        "chunk-line-too-long": ("A line between chunks is longer than this registry reads.", _TELL_ITS_OPERATORS),
        "too-many-trailers": ("There are more trailers than this registry reads.", _TELL_ITS_OPERATORS),
    },
    "bad-redirect": {
        "redirect-circle": (
            "The host redirects in a circle.",
            "It may want a cookie, which this registry never keeps: use a URL that needs none.",
        ),
        "too-many-redirects": ("There are more redirects than are followed, ten.", "Use the URL at which they end."),
        "no-location": ("A redirect does not say where to.", _TELL_ITS_OPERATORS),
        "ambiguous-redirect": ("A redirect leads to two places.", _TELL_ITS_OPERATORS),
        "forbidden-redirect": (
            "A redirect leads to a URL that breaks the rules of this registry.",
            "Use a URL that ends at a host, a port and a scheme which the operators allow.",
        ),
        "redirect-to-http": (
            "A redirect leads from https to http.",
            "Have the host redirect to https, or not at all.",
        ),
    },
    "bad-certificate": {
        "certificate-expired": ("The certificate has expired.", "Have it renewed, and the host restarted with it."),
        "certificate-not-yet-valid": ("The certificate is not valid yet.", "See whether the clocks are right."),
        "certificate-other-name": (
            "The certificate is for another host name.",
            "Use the name that it is for, or have this one added to it.",
        ),
        "certificate-incomplete-chain": (
            "The host sends its certificate without the intermediate that links it to its authority.",
            "Have it send the whole chain. Browsers hide this, since they remember intermediates.",
        ),
        "certificate-unknown-issuer": (
            "Nobody whom this registry trusts issued the certificate.",
            "Use a certificate of a public authority, or have the operators trust yours (REGISTRY_EGRESS_CA_FILE).",
        ),
        "certificate-revoked": ("The certificate was revoked.", "Have it replaced."),
        "certificate-too-weak": (
            "The certificate has too small a key, or too old a signature.",
            "Have it replaced by one of today.",
        ),
    },
    "connect-failed": {
        "not-resolved": (
            "The host's name could not be resolved now.",
            "See whether its name servers answer, then send the registration again.",
        ),
        "proxy-away": (
            "The registry's egress proxy cannot be reached.",
            "Tell the operators of the registry.",
        ),
        "no-tls": (
            "The host speaks no TLS on this port.",
            "See whether the port is right, or the URL should begin with http.",
        ),
        "tls-handshake": (
            "The host and the registry did not agree on TLS.",
            "Have the host offer TLS 1.2 or 1.3, and serve the artifact without a client certificate.",
        ),
    },
    "truncated": {
        "pieced-together": (
            "The download broke, its rest was asked for, and two downloads of this kind differ.",
            "See whether the host can serve the whole file at once, and the right rest of it.",
        ),
        "unannounced-length": (
            "The host announces no length, and two downloads differ.",
            "Have it send Content-Length, or chunks: else nobody can tell the end from a cut.",
        ),
    },
    "upstream-busy": {
        "said-later": (
            "The host refused, and said when to ask again.",
            "Wait for that long, and send the registration again.",
        ),
        "rate-limited": (
            "The host has no requests left for this registry.",
            "Wait until its limit is over, or serve the artifact without one to this registry's `User-Agent`.",
        ),
    },
    "conflict": {
        "same-content": (
            "This name and version are registered with this very content, from another URL.",
            "There is nothing to register. A plugin's URL never changes.",
        ),
        "registered-meanwhile": (
            "The same submission, with another query in its URL, was registered meanwhile.",
            "There is nothing to do: `pluginId` names the plugin.",
        ),
    },
    "attempts-used-up": {
        "workers-lost": ("Two workers were lost while they verified this.", "Tell the operators of the registry."),
    },
    "registry-shortage": {
        "open-files": ("A worker had no file descriptor left.", _RAISE),
        "memory": ("A worker had no memory left.", _RAISE),
        "threads": ("A worker could start no thread.", _RAISE),
        "resolver": ("All of a worker's look-ups of names hung.", _RAISE),
    },
}
