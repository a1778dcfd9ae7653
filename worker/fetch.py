"""One artifact as a stream of chunks: hop by hop, under limits, exactly the bytes that were served."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from urllib.parse import urldefrag, urljoin

import requests
from requests.exceptions import ConnectTimeout, RequestException, Timeout
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError, SSLError

from shared.egress import Egress, Target
from shared.errors import (
    ArtifactMissing,
    ArtifactTooLarge,
    BadCertificate,
    BadResponse,
    ConnectFailed,
    ForbiddenUrl,
    ReadTimeout,
    RegistryError,
    TooManyRedirects,
    Truncated,
    UpstreamBusy,
)
from worker.attempts import Attempt
from worker.connect import EgressAdapter, current_attempt

MAX_HOPS = 5
CHUNK_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, *range(500, 600)})
_HEADERS = {
    "User-Agent": "plugin-registry",
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # the declared digest is of the artifact, not of a transfer form of it
    "Connection": "close",
}


class Fetcher:
    """Fetches artifacts through *adapter*, as *egress* and the limits allow."""

    def __init__(
        self,
        adapter: EgressAdapter,
        egress: Egress,
        *,
        max_bytes: int,
        connect_timeout_s: float,
        read_timeout_s: float,
        ca_file: Path | None = None,
    ) -> None:
        self._adapter = adapter
        self._egress = egress
        self._max_bytes = max_bytes
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._verify: bool | str = True if ca_file is None else str(ca_file)

    @contextmanager
    def __call__(self, url: str, attempt: Attempt) -> Iterator[Iterator[bytes]]:
        """Yield the bytes at *url* as they arrive, and tell *attempt* how far they have come.

        Raises:
            Rejected: what is there, or where it is, rules the artifact out.
            Unavailable: it could not be had this time.
        """
        current_attempt.set(attempt)
        with _translated(attempt):
            response = self._open(url, attempt)
        try:
            attempt.artifact_bytes = self._announced_bytes(response)
            yield _chunks(response, attempt)
        finally:
            response.close()

    def _open(self, url: str, attempt: Attempt) -> requests.Response:
        """Follow redirects, none of whose bodies is read, to a complete 200."""
        target = self._egress.check_url(url)
        for _hop in range(MAX_HOPS + 1):
            response = self._get(url, target, attempt)
            if response.status_code not in _REDIRECTS:
                _check_status(response)
                return response
            location = response.headers.get("Location")
            response.close()
            if not location:
                raise TooManyRedirects("The artifact's host sent a redirect that does not say where to.")
            url = urldefrag(urljoin(url, location)).url
            target = self._egress.check_redirect(target, url)
        raise TooManyRedirects(f"The artifact's host redirected more than {MAX_HOPS} times.")

    def _get(self, url: str, target: Target, attempt: Attempt) -> requests.Response:
        # Not through a Session: that reads redirects' bodies, keeps cookies and looks at the environment.
        request = requests.Request("GET", url, headers=_HEADERS).prepare()
        if request.url is None or self._egress.check_url(request.url) != target:
            raise ForbiddenUrl("artifactUrl can be read in more than one way: write it plainly.")
        return self._adapter.send(
            request,
            stream=True,
            timeout=(
                attempt.remaining_s(self._connect_timeout_s),
                attempt.remaining_s(self._read_timeout_s),
            ),
            verify=self._verify,
            proxies={},
        )

    def _announced_bytes(self, response: requests.Response) -> int | None:
        lengths = response.raw.headers.getlist("Content-Length")
        if not lengths:
            return None
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise BadResponse("The artifact's host sent an impossible Content-Length.")
        if "Transfer-Encoding" in response.headers:
            raise BadResponse("The artifact's host sent both Content-Length and Transfer-Encoding.")
        if int(lengths[0]) > self._max_bytes:
            raise ArtifactTooLarge.over(self._max_bytes)
        return int(lengths[0])


def _chunks(response: requests.Response, attempt: Attempt) -> Iterator[bytes]:
    with _translated(attempt):
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            attempt.bytes_downloaded += len(chunk)
            yield chunk
        attempt.check()  # a body without a length ends where the watchdog shut the socket, too


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    response.close()
    if status in _BUSY:
        raise UpstreamBusy(
            f"The artifact's host answered {status}.",
            retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
        )
    if 400 <= status < 500:
        raise ArtifactMissing(f"The artifact's host answered {status}: it must be there, and open to this registry.")
    raise BadResponse(f"The artifact's host answered {status}; only 200 with the whole artifact counts.")


def _retry_after_s(header: str) -> float | None:
    """Return the seconds in a Retry-After header (RFC 9110 section 10.2.3), if it holds any."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except (ValueError, OverflowError):
        return None


@contextmanager
def _translated(attempt: Attempt) -> Iterator[None]:
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
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return BadCertificate("The certificate of the artifact's host is not valid for it.")
    if any(isinstance(cause, ssl.SSLError | SSLError | ConnectTimeout) for cause in causes):
        return ConnectFailed("No connection could be made to the host of artifactUrl.")
    if any(isinstance(cause, Timeout | ReadTimeoutError | TimeoutError) for cause in causes):
        return ReadTimeout("The artifact's host stopped sending.")
    return Truncated("The connection to the artifact's host broke before the artifact was complete.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        reason = error.reason if isinstance(error, MaxRetryError) else None
        inner = next((each for each in error.args if isinstance(each, BaseException)), None)
        error = reason or error.__cause__ or error.__context__ or inner
