"""One artifact, as it arrives: hop by hop, under limits, exactly the bytes that were served."""

import asyncio
from contextlib import closing
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import urldefrag, urljoin

from shared.egress import Egress, Target
from shared.errors import (
    ArtifactMissing,
    BadResponse,
    ConnectFailed,
    ReadTimeout,
    TooManyRedirects,
    Truncated,
    UpstreamBusy,
)
from shared.logs import get_logger
from worker.attempt import Attempt
from worker.digest.intake import Intake
from worker.fetch.client import Answer, Client
from worker.fetch.resume import Part
from worker.fetch.translation import translated
from worker.slots import Slot

MAX_REDIRECTS = 5
MAX_FRUITLESS = 4
"""Breaks in a row, none of which brought a new byte, after which an attempt has failed."""
MAX_RESTARTS = 2
"""How often an attempt may begin again from byte 0."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, *range(500, 600)})
log = get_logger(__name__)


class Fetcher:
    """Fetches artifacts through *client*, as *egress* and the limits allow."""

    def __init__(self, client: Client, egress: Egress, *, max_bytes: int) -> None:
        self._client = client
        self._egress = egress
        self._max_bytes = max_bytes

    async def __call__(self, url: str, attempt: Attempt, slot: Slot, intake: Intake, /) -> None:
        """Fetch; go on after a break, where the server allows it.

        Breaks are mended while that brings us further: a few in a row without one new byte, or a
        third beginning from byte 0, and the attempt has failed.
        """
        part = Part()
        fruitless = restarts = 0
        while True:
            begun_at = intake.size_bytes
            try:
                with translated(), closing(await self._open(url, attempt, slot, part)) as answer:
                    resumed = part.resumed_by(answer, max_bytes=self._max_bytes) if part.offset else None
                    if part.offset and resumed is None:
                        restarts += 1
                        begun_at = 0
                        intake.begin_again()
                        if answer.status != 200:
                            part = Part()
                            continue  # an answer that is neither the rest nor the whole: ask for the whole
                    if resumed is not None:
                        part = resumed
                    else:
                        part = Part.begun_by(answer, max_bytes=self._max_bytes)
                        intake.media_type = answer.header("Content-Type").lower()
                        intake.content_encoding = answer.header("Content-Encoding").lower()
                    attempt.artifact_bytes = intake.total_bytes = part.total_bytes
                    try:
                        await answer.read(intake)
                    finally:
                        part = part.at(intake.size_bytes)
                    part.check_end()
                    answer.keep()
                    return
            except (Truncated, ReadTimeout, ConnectFailed) as broken:
                fruitless = 0 if intake.size_bytes > begun_at else fruitless + 1
                if part.validator is None or fruitless > MAX_FRUITLESS or restarts > MAX_RESTARTS:
                    raise
                log.info("resuming", at_byte=part.offset, code=broken.code, **attempt.fields)
                await asyncio.sleep(0.1 * 2**fruitless)

    async def _open(self, url: str, attempt: Attempt, slot: Slot, part: Part) -> Answer:
        """Follow redirects, none of whose bodies is read, to a 200, or the 206 that *part* asks for."""
        target = self._egress.check_url(url)
        for _hop in range(MAX_REDIRECTS + 1):
            await slot.move(target)
            answer = await self._client.get(url, target, attempt.claim.submitted_by, part.headers)
            if answer.status not in _REDIRECTS:
                _check_status(answer, partial=bool(part.headers))
                return answer
            location = answer.header("Location")
            answer.close()
            url, target = self._follow(url, target, location)
        raise TooManyRedirects(f"The artifact's host redirected more than {MAX_REDIRECTS} times.")

    def _follow(self, url: str, target: Target, location: str) -> tuple[str, Target]:
        """Return where a redirect from *url*, which leads to *target*, leads."""
        if not location:
            raise TooManyRedirects("The artifact's host sent a redirect that does not say where to.")
        try:
            if "\t" in location:  # which urljoin would leave out: what is checked is what was sent
                raise ValueError("a tab")  # noqa: TRY301
            url = urldefrag(urljoin(url, location)).url
        except ValueError as error:
            raise TooManyRedirects("The artifact's host sent a redirect to what is no URL.") from error
        return url, self._egress.check_redirect(target, url)


def _check_status(answer: Answer, *, partial: bool) -> None:
    status = answer.status
    if status == 200 or (partial and status in {206, 416}):
        return
    answer.close()
    if status in _BUSY:
        raise UpstreamBusy(
            f"The artifact's host answered {status}.",
            cause=f"status-{status}",
            retry_after_s=_retry_after_s(answer.header("Retry-After")),
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
