"""What the standard library raises -> errors of ours. The core sees none of its."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import BadCertificate, ConnectFailed, ReadTimeout, RegistryError, Truncated
from worker.attempts import Attempt
from worker.connect import NO_CONNECTION
from worker.parser import BROKE_OFF


@contextmanager
def translated(attempt: Attempt) -> Iterator[None]:
    """Turn what sockets and TLS raise into errors of ours; a reason to cut off comes before both."""
    try:
        yield
    except RegistryError:
        attempt.check()
        raise
    except (OSError, ValueError) as error:
        attempt.check()
        raise _translation(error) from error


def _translation(error: Exception) -> RegistryError:
    for kinds, ours, detail in _TRANSLATIONS:
        if isinstance(error, kinds):
            return ours(detail)
    return Truncated(BROKE_OFF)


# The first row that fits counts: some of these are derived from others.
_TRANSLATIONS: tuple[tuple[tuple[type[BaseException], ...], type[RegistryError], str], ...] = (
    ((ssl.SSLCertVerificationError,), BadCertificate, "The certificate of the artifact's host is not valid for it."),
    ((ssl.SSLEOFError,), Truncated, BROKE_OFF),
    ((ssl.SSLError,), ConnectFailed, NO_CONNECTION),
    ((TimeoutError,), ReadTimeout, "The artifact's host stopped sending."),
    ((ConnectionError,), Truncated, BROKE_OFF),
)
