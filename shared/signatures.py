"""Signatures of webhooks, by the Standard Webhooks specification (https://www.standardwebhooks.com): `v1` and `v1a`.

What is signed is ``ID.TIMESTAMP.BODY``. `v1` is HMAC-SHA256 with a secret that both sides hold, `v1a` is Ed25519 with
a key of the registry's own, whose public half anybody may read. Each is written ``v1,BASE64``; a receiver takes what
it knows.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SECRET, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"


def new_key() -> tuple[str, str]:
    """Return a new private key and its public one, as the specification writes them."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PRIVATE + base64.b64encode(private).decode(), PUBLIC + base64.b64encode(public).decode()


def signed_headers(
    message_id: str, timestamp: int, body: bytes, *, secrets: Iterable[str], private_key: str
) -> dict[str, str]:
    """Return the headers that a delivery carries, signed with each of *secrets* and with *private_key*.

    *timestamp* is in seconds since the epoch: that of this try, not of the event.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [f"v1,{base64.b64encode(_hmac(each, signed)).decode()}" for each in secrets]
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(private_key.removeprefix(PRIVATE)))
    signatures.append(f"v1a,{base64.b64encode(key.sign(signed)).decode()}")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _hmac(secret: str, signed: bytes) -> bytes:
    return hmac.digest(base64.b64decode(secret.removeprefix(SECRET)), signed, hashlib.sha256)
