"""One artifact as a stream of chunks: hop by hop, under limits, exactly the bytes that were served."""

import http.client
import re
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Self
from urllib.parse import urldefrag, urljoin

import requests
from requests.exceptions import ConnectTimeout, RequestException, Timeout
from urllib3.exceptions import (
    HTTPError,
    InvalidChunkLength,
    InvalidHeader,
    MaxRetryError,
    ReadTimeoutError,
    SSLError,
)

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
from shared.logs import get_logger
from worker.artifact import Download, Piece, Seen
from worker.attempts import Attempt
from worker.connect import EgressAdapter, current_attempt

MAX_HOPS = 5
CHUNK_BYTES = 64 * 1024
MAX_FRUITLESS = 4
"""Breaks in a row, none of which brought a new byte, after which an attempt has failed."""
MAX_RESTARTS = 2
"""How often an attempt may begin again from byte 0."""
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, *range(500, 600)})
log = get_logger(__name__)
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
    def __call__(self, url: str, attempt: Attempt) -> Iterator[Download]:
        """Yield the artifact at *url* as it arrives; see `worker.artifact.Fetch`."""
        current_attempt.set(attempt)
        seen = Seen()
        with closing(self._pieces(url, attempt, seen)) as pieces:
            yield Download(pieces, seen)

    def _pieces(self, url: str, attempt: Attempt, seen: Seen) -> Generator[Piece]:
        """Yield the artifact piece by piece; go on after a break, where the server allows it.

        Breaks are mended while that brings us further: a few in a row without one new byte, or a
        third beginning from byte 0, and the attempt has failed.
        """
        part = Part()
        fruitless = restarts = 0
        while True:
            begun_at = part.offset
            try:
                with _translated(attempt), closing(self._open(url, attempt, part)) as response:
                    if part.offset and not part.resumed_by(response):
                        restarts += 1
                        part, begun_at = Part(), 0
                        if response.status_code != 200:
                            continue  # an answer that is neither the rest nor the whole: ask for the whole
                    if part.offset == 0:
                        part = Part.begun_by(response, max_bytes=self._max_bytes)
                        seen.media_type = response.headers.get("Content-Type", "").lower()
                        seen.content_encoding = response.headers.get("Content-Encoding", "").lower()
                        attempt.artifact_bytes = part.total_bytes
                    for chunk in _chunks(response):
                        piece = (part.offset, chunk)
                        part = part.plus(len(chunk))
                        seen.note(piece)
                        attempt.bytes_downloaded = part.offset
                        yield piece
                    attempt.check()  # a body without a length ends where the watchdog shut the socket, too
                    return
            except (Truncated, ReadTimeout, ConnectFailed) as broken:
                fruitless = 0 if part.offset > begun_at else fruitless + 1
                if part.validator is None or fruitless > MAX_FRUITLESS or restarts > MAX_RESTARTS:
                    raise
                log.info("resuming", at_byte=part.offset, code=broken.code, **attempt.fields)
                attempt.pause(0.1 * 2**fruitless)

    def _open(self, url: str, attempt: Attempt, part: "Part") -> requests.Response:
        """Follow redirects, none of whose bodies is read, to a 200, or the 206 that *part* asks for."""
        target = self._egress.check_url(url)
        for _hop in range(MAX_HOPS + 1):
            response = self._get(url, target, attempt, part.headers)
            if response.status_code not in _REDIRECTS:
                _check_status(response, partial=bool(part.headers))
                return response
            location = response.headers.get("Location")
            response.close()
            if not location:
                raise TooManyRedirects("The artifact's host sent a redirect that does not say where to.")
            url = urldefrag(urljoin(url, location)).url
            target = self._egress.check_redirect(target, url)
        raise TooManyRedirects(f"The artifact's host redirected more than {MAX_HOPS} times.")

    def _get(self, url: str, target: Target, attempt: Attempt, more: Mapping[str, str]) -> requests.Response:
        # Not through a Session: that reads redirects' bodies, keeps cookies and looks at the environment.
        request = requests.Request("GET", url, headers={**_HEADERS, **more}).prepare()
        if request.url is None or self._egress.check_url(request.url) != target:
            raise ForbiddenUrl("artifactUrl can be read in more than one way: write it plainly.")
        timeout = (attempt.remaining_s(self._connect_timeout_s), attempt.remaining_s(self._read_timeout_s))
        return self._adapter.get(request, timeout=timeout, verify=self._verify)


@dataclass(frozen=True)
class Part:
    """How much of an artifact there is, and how to ask for the rest (RFC 9110 sections 13.1.5 and 14.2)."""

    offset: int = 0
    total_bytes: int | None = None
    validator: str | None = None
    """A strong ETag: without one, two answers cannot be known to be of the same artifact."""

    @classmethod
    def begun_by(cls, response: requests.Response, *, max_bytes: int) -> Self:
        """Return the part that *response*, a 200, is the beginning of.

        Raises:
            BadResponse: its length is impossible.
            ArtifactTooLarge: its length is over *max_bytes*.
        """
        total_bytes = _announced_bytes(response)
        if total_bytes is not None and total_bytes > max_bytes:
            raise ArtifactTooLarge.over(max_bytes)
        etag = response.headers.get("ETag", "")
        return cls(0, total_bytes, etag if _STRONG_ETAG.fullmatch(etag) else None)

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the rest, if the artifact is still the same; nothing at the beginning."""
        if self.offset == 0 or self.validator is None:
            return {}
        return {"Range": f"bytes={self.offset}-", "If-Range": self.validator}

    def resumed_by(self, response: requests.Response) -> bool:
        """Whether *response* is exactly the rest of this part."""
        if response.status_code != 206:
            return False
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or response.headers.get("ETag", self.validator) != self.validator:
            return False
        first, last, total = (int(number) for number in found.groups())
        rest = _announced_bytes(response)
        return (
            first == self.offset
            and last == total - 1
            and self.total_bytes in {None, total}
            and rest in {None, total - first}
        )

    def plus(self, count: int) -> "Part":
        """Return this part with *count* more bytes."""
        return replace(self, offset=self.offset + count)


def _announced_bytes(response: requests.Response) -> int | None:
    lengths = response.raw.headers.getlist("Content-Length")
    if "Transfer-Encoding" in response.headers:
        if lengths or response.headers["Transfer-Encoding"].strip().lower() != "chunked":
            raise BadResponse("The artifact's host framed its answer in a way that can be read in two.")
        return None
    if not lengths:
        return None
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
        raise BadResponse("The artifact's host sent an impossible Content-Length.")
    return int(lengths[0][:20])


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives, exactly as served."""
    if response.raw.chunked:
        yield from response.raw.stream(CHUNK_BYTES, decode_content=False)
        return
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
        yield chunk


def _check_status(response: requests.Response, *, partial: bool) -> None:
    status = response.status_code
    if status == 200 or (partial and status in {206, 416}):
        return
    response.close()
    if status in _BUSY:
        raise UpstreamBusy(
            f"The artifact's host answered {status}.",
            cause=f"status-{status}",
            retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
        )
    if 400 <= status < 500:
        raise ArtifactMissing(
            f"The artifact's host answered {status}: it must be there, and open to this registry.",
            cause=f"status-{status}",
        )
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
    if any("exceeded maximum" in str(cause) for cause in causes):  # urllib3 has no class of its own for this
        return BadResponse(_BROKE_HTTP)
    for kinds, ours, detail in _TRANSLATIONS:
        if any(isinstance(cause, kinds) for cause in causes):
            return ours(detail)
    return Truncated(_BROKE_OFF)


_NO_CONNECTION = "No connection could be made to the host of artifactUrl."
_BROKE_HTTP = "The artifact's host broke the rules of HTTP."
_BROKE_OFF = "The connection to the artifact's host broke before the artifact was complete."
# The first row that fits counts: libraries derive their errors from each other's.
_TRANSLATIONS: tuple[tuple[tuple[type[BaseException], ...], type[RegistryError], str], ...] = (
    ((ssl.SSLCertVerificationError,), BadCertificate, "The certificate of the artifact's host is not valid for it."),
    ((ssl.SSLError, SSLError, ConnectTimeout), ConnectFailed, _NO_CONNECTION),
    ((Timeout, ReadTimeoutError, TimeoutError), ReadTimeout, "The artifact's host stopped sending."),
    ((InvalidChunkLength, InvalidHeader), BadResponse, _BROKE_HTTP),
    ((http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionError), Truncated, _BROKE_OFF),
    ((http.client.HTTPException,), BadResponse, _BROKE_HTTP),
)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        reason = error.reason if isinstance(error, MaxRetryError) else None
        inner = next((each for each in error.args if isinstance(each, BaseException)), None)
        error = reason or error.__cause__ or error.__context__ or inner
