"""What requests, urllib3 and the standard library raise -> errors of ours. The core sees none of theirs."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from requests.exceptions import ConnectTimeout, RequestException, Timeout
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError, ReadTimeoutError, SSLError

from shared.errors import BadCertificate, BadResponse, ConnectFailed, ReadTimeout, RegistryError, Truncated
from worker.attempts import Attempt
from worker.connect import NO_CONNECTION
from worker.framing import BROKE_HTTP, BROKE_OFF


@contextmanager
def translated(attempt: Attempt) -> Iterator[None]:
    """Turn what requests and urllib3 raise into errors of ours; a reason to cut off comes before both."""
    try:
        yield
    except RegistryError:
        attempt.check()
        raise
    except (RequestException, HTTPError, OSError, ValueError) as error:
        attempt.check()
        raise _translation(error) from error


def _translation(error: Exception) -> RegistryError:
    causes = list(_causes(error))
    for kinds, ours, detail in _TRANSLATIONS:
        if any(isinstance(cause, kinds) for cause in causes):
            return ours(detail)
    return Truncated(BROKE_OFF)


# The first row that fits counts: libraries derive their errors from each other's.
_TRANSLATIONS: tuple[tuple[tuple[type[BaseException], ...], type[RegistryError], str], ...] = (
    ((ssl.SSLCertVerificationError,), BadCertificate, "The certificate of the artifact's host is not valid for it."),
    ((ssl.SSLEOFError,), Truncated, BROKE_OFF),
    ((ssl.SSLError, SSLError, ConnectTimeout), ConnectFailed, NO_CONNECTION),
    ((Timeout, ReadTimeoutError, TimeoutError), ReadTimeout, "The artifact's host stopped sending."),
    ((InvalidHeader,), BadResponse, BROKE_HTTP),
    ((http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionError), Truncated, BROKE_OFF),
    ((http.client.HTTPException,), BadResponse, BROKE_HTTP),
)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        reason = error.reason if isinstance(error, MaxRetryError) else None
        inner = next((each for each in error.args if isinstance(each, BaseException)), None)
        error = reason or error.__cause__ or error.__context__ or inner
