"""One artifact, as it arrives: hop by hop, under limits, exactly the bytes that were served."""

import asyncio
from contextlib import closing

from shared.egress import ELSEWHERE, Egress, Target
from shared.errors import (
    ArtifactMissing,
    BadRedirect,
    BadResponse,
    ConnectFailed,
    ForbiddenAddress,
    HostNotFound,
    ReadTimeout,
    Truncated,
    UpstreamBusy,
)
from shared.logs import get_logger, scrub
from worker.attempt import Attempt
from worker.digest.intake import Intake
from worker.fetch.client import Answer, Client
from worker.fetch.location import resolved
from worker.fetch.resume import Part
from worker.fetch.status import REDIRECTS, refusal, retry_after_s
from worker.fetch.translation import translated
from worker.slots import Slot

MAX_REDIRECTS = 10
MAX_HOP_CHARACTERS = 300
"""Of a URL that a redirect led to, so much is kept to be shown."""
MAX_FRUITLESS = 4
"""Breaks in a row, none of which brought a new byte, after which an attempt has failed."""
MAX_RESTARTS = 2
"""How often an attempt may begin again from byte 0."""
_COOKIE = ", and wants a cookie kept, which this registry never does: use a URL that needs none."
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
            intake.pieced = bool(part.headers)
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
                        intake.announced_bytes = intake.announced_bytes or part.total_bytes
                        intake.media_type = answer.header("Content-Type").lower()
                        intake.content_encoding = answer.header("Content-Encoding").lower()
                    attempt.artifact_bytes = intake.total_bytes = part.total_bytes
                    intake.open_ended = part.total_bytes is None and not answer.head.chunked
                    try:
                        await answer.read(intake)
                    finally:
                        part = part.at(intake.size_bytes)
                    part.check_end()
                    answer.keep()
                    return
            except (ArtifactMissing, BadRedirect, BadResponse):
                if not intake.pieced or restarts > MAX_RESTARTS:
                    raise
                restarts += 1  # what refuses the rest says nothing of the artifact
                part = Part()
                intake.begin_again()
            except (Truncated, ReadTimeout, ConnectFailed) as broken:
                fruitless = 0 if intake.size_bytes > begun_at else fruitless + 1
                if part.validator is None or fruitless > MAX_FRUITLESS or restarts > MAX_RESTARTS:
                    raise
                log.info("resuming", at_byte=part.offset, code=broken.code, **attempt.fields)
                await asyncio.sleep(0.1 * 2**fruitless)

    async def _open(self, url: str, attempt: Attempt, slot: Slot, part: Part) -> Answer:
        """Follow redirects, none of whose bodies is read, to the artifact, or to what is no answer to *part*."""
        target = self._egress.check_url(url)
        asked, wants_cookie = {url}, False
        attempt.hops.clear()
        for hop in range(MAX_REDIRECTS + 1):
            await slot.move(target)
            answer = await self._get(url, target, attempt, part, redirected=hop > 0)
            if answer.status not in REDIRECTS:
                if refused := refusal(answer.head, partial=bool(part.headers), agent=self._client.agent):
                    answer.close()
                    raise refused
                return answer
            answer.close()
            wants_cookie = wants_cookie or bool(answer.head.values("set-cookie"))
            url, target = self._follow(url, target, answer.head.values("location"))
            attempt.hops.append(scrub(url)[:MAX_HOP_CHARACTERS])
            if url in asked and answer.header("Retry-After"):
                raise UpstreamBusy(
                    f"The artifact's host answered {answer.status}: later, at the same place.",
                    cause="said-later",
                    retry_after_s=retry_after_s(answer.header("Retry-After")),
                )
            if url in asked:
                raise BadRedirect(
                    f"The artifact's host redirects in a circle{_COOKIE if wants_cookie else '.'}",
                    cause="redirect-circle",
                )
            asked.add(url)
        raise BadRedirect(
            f"The artifact's host redirected more than {MAX_REDIRECTS} times{_COOKIE if wants_cookie else '.'}",
            cause="too-many-redirects",
        )

    async def _get(self, url: str, target: Target, attempt: Attempt, part: Part, *, redirected: bool) -> Answer:
        """Ask *target*; where a redirect has led to it, what is wrong with it is not the submitter's."""
        try:
            return await self._client.get(url, target, attempt.claim.submitted_by, part.headers)
        except (ForbiddenAddress, HostNotFound) as error:
            if not redirected:
                raise
            raise error.blamed("upstream", ELSEWHERE) from None

    def _follow(self, url: str, target: Target, locations: list[str]) -> tuple[str, Target]:
        """Return where a redirect from *url*, which leads to *target*, leads."""
        if len(set(locations)) > 1:
            raise BadRedirect("The artifact's host sent a redirect to two places.", cause="ambiguous-redirect")
        if not any(locations):
            raise BadRedirect("The artifact's host sent a redirect that does not say where to.", cause="no-location")
        url = resolved(url, locations[0])
        return url, self._egress.check_redirect(target, url)
