"""Why there is no TLS with a host: one cause for each reason, and what to do about it (RFC 8446, RFC 5280).

OpenSSL's numbers of what is wrong with a certificate are in its manual, `X509_STORE_CTX_get_error`. Where it found no
issuer, and was sent nobody's certificate but the host's, two things look the same: an intermediate is missing, or
nobody here knows the issuer. A certificate that a public authority's intermediate issued tells where to find that
(RFC 5280 section 4.2.2.1), and others hardly ever do; so that decides.
"""

import ssl
from typing import Final

from shared.errors import BadCertificate, ConnectFailed, RegistryError, Truncated
from worker.fetch.parser import BROKE_OFF

NO_ISSUER: Final = 20
"""OpenSSL's number for a chain that ends where nobody here knows the issuer."""
_CA_ISSUERS = bytes.fromhex("06082b06010505073002")
"""id-ad-caIssuers, as DER has it."""

_EXPIRED = ("certificate-expired", "has expired: renew it, and see that the host was restarted with the new one.")
_TOO_EARLY = ("certificate-not-yet-valid", "is not valid yet: is the clock right, there and here?")
_OTHER_NAME = (
    "certificate-other-name",
    "is not for this host name: use the name that it is for, or have the name added to it.",
)
_INCOMPLETE = (
    "certificate-incomplete-chain",
    (
        "comes without the intermediate certificate that links it to its authority: have the host send the chain "
        "(browsers hide this, since they remember intermediates)."
    ),
)
_UNKNOWN_ISSUER = (
    "certificate-unknown-issuer",
    (
        "is of an issuer whom this registry does not trust: use one of a public authority, or have the registry's "
        "operators trust yours (REGISTRY_EGRESS_CA_FILE)."
    ),
)
_REVOKED = ("certificate-revoked", "was revoked: replace it.")
_WEAK = ("certificate-too-weak", "has too small a key or too old a signature: replace it by one of today.")
_INVALID = ("bad-certificate", "is not valid for it.")
_CAUSES = {
    2: _UNKNOWN_ISSUER,
    9: _TOO_EARLY,
    10: _EXPIRED,
    18: _UNKNOWN_ISSUER,
    19: _UNKNOWN_ISSUER,
    NO_ISSUER: _UNKNOWN_ISSUER,
    21: _INCOMPLETE,
    23: _REVOKED,
    62: _OTHER_NAME,
    64: _OTHER_NAME,
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
}

_NO_TLS = ("no-tls", "It speaks no TLS on this port: is the port right, or the URL to begin with http?")
_WANTS_OURS = (
    "tls-handshake",
    "It wants a client certificate, and this registry has none: serve the artifact without one.",
)
_TOO_OLD = ("tls-handshake", "It speaks no version of TLS that is still safe: have it speak TLS 1.2 or 1.3.")
_DISAGREED = (
    "tls-handshake",
    (
        "Its TLS and this registry's have nothing in common (or it wants a client certificate): have it offer TLS "
        "1.2 or 1.3 with elliptic curves, and serve the artifact without a client certificate."
    ),
)
_BROKE_OFF = ("tls-handshake", "It broke off while TLS was being agreed on.")
_SILENT = ("tls-handshake", "It fell silent while TLS was being agreed on.")
_REASONS = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _TOO_OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _TOO_OLD,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTS_OURS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _DISAGREED,
    "SSL/TLS_ALERT_HANDSHAKE_FAILURE": _DISAGREED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _WANTS_OURS,
    "TLSV1_UNRECOGNIZED_NAME": ("tls-handshake", "It serves no host of this name: is the name right?"),
    "UNEXPECTED_EOF_WHILE_READING": _BROKE_OFF,
}
_OF_A_CLIENT = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED"})
"""Alerts that come once a client believes that all is agreed on (RFC 8446 section 4.4.2.4)."""


def no_trust(
    error: ssl.SSLCertVerificationError, certificate: bytes | None = None, others: int = 0
) -> BadCertificate:
    """Return why *error* says that a host's certificate is none for it.

    *certificate* is it in DER, where that is known, and *others* how many were sent with it.
    """
    cause, sentence = _CAUSES.get(error.verify_code, _INVALID)
    if error.verify_code == NO_ISSUER and not others and _CA_ISSUERS in (certificate or b""):
        cause, sentence = _INCOMPLETE
    return BadCertificate(f"The certificate of the artifact's host {sentence}", cause=cause)


def no_handshake(error: OSError) -> ConnectFailed:
    """Return why *error* ended a handshake."""
    if isinstance(error, ssl.SSLError):
        cause, sentence = _REASONS.get(getattr(error, "reason", None) or "", _DISAGREED)
    else:
        cause, sentence = _SILENT if isinstance(error, TimeoutError) else _BROKE_OFF
    return ConnectFailed(f"No secure connection could be made to the artifact's host. {sentence}", cause=cause)


def broken_off(error: ssl.SSLError) -> RegistryError:
    """Return what *error* says on a connection on which TLS had been agreed on."""
    return no_handshake(error) if getattr(error, "reason", None) in _OF_A_CLIENT else Truncated(BROKE_OFF)
