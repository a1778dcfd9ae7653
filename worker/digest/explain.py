"""A mismatch, with what probably happened. What is looked at for that is looked at in another process."""

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol
from urllib.parse import unquote

from shared.errors import DigestMismatch
from shared.logs import get_logger
from shared.registration import Claim, Digest
from worker.digest.contained import WITHIN_S, Contained, NoAnswer
from worker.digest.diagnose import UNKNOWN, Cause, Evidence
from worker.digest.intake import Intake

_COMPRESSIONS = frozenset({"gzip", "deflate", "br", "zstd", "compress"})
MAX_WAITING = 64
"""Mismatches beyond this are told without an explanation: a flood of them must not hold places for long."""
log = get_logger(__name__)


class Explainer(Protocol):
    """Says why a declared and a computed digest differ."""

    async def __call__(
        self, claim: Claim, computed: Digest, intake: Intake, versions: Mapping[str, str], /
    ) -> DigestMismatch:
        """Return the mismatch of what *claim* declares and *computed*, which *intake* took in.

        *versions* are the plugin's registered versions, by their checksums.
        """
        ...


class Diagnosis:
    """Explains by asking *child*, which runs `worker.digest.diagnose`, one question at a time."""

    def __init__(self, child: Contained | None = None) -> None:
        self._child = child or Contained("worker.digest.diagnose")
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="diagnosis")
        self._waiting = 0

    async def __call__(
        self, claim: Claim, computed: Digest, intake: Intake, versions: Mapping[str, str], /
    ) -> DigestMismatch:
        """Ask the child; where it does not answer, the mismatch is told all the same."""
        declared = claim.submission.checksum
        cause = await self._cause(
            Evidence(
                declared,
                computed.checksum,
                computed.size_bytes,
                any(each in intake.content_encoding for each in _COMPRESSIONS),
                versions.get(computed.checksum),
                versions.get(declared),
                bytes(intake.head),
                intake.media_type,
                unquote(claim.submission.artifact_url.partition("?")[0].rpartition("/")[2]),
                intake.announced_bytes,
            )
        )
        note = " (Their length was not announced; two downloads agreed.)" if intake.open_ended else ""
        return DigestMismatch(
            f"The bytes at artifactUrl do not hash to the declared checksum. {cause.sentence}{note}",
            cause=cause.word,
            declared=declared,
            computed=computed.checksum,
        )

    def close(self) -> None:
        """End the child, when it has answered what it is at."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._child.close()

    async def _cause(self, evidence: Evidence) -> Cause:
        surprise = "others were before us"
        if self._waiting < MAX_WAITING:
            self._waiting += 1
            try:
                return await self._answer(evidence)
            except TimeoutError:
                pass
            except (NoAnswer, RuntimeError) as error:  # no thread to ask on, or this worker is leaving
                surprise = str(error)
            finally:
                self._waiting -= 1
        log.warning("mismatch not explained", reason=surprise, computed=evidence.computed)
        return UNKNOWN

    async def _answer(self, evidence: Evidence) -> Cause:
        asking = asyncio.get_running_loop().run_in_executor(self._asking, self._child.ask, evidence.pack())
        async with asyncio.timeout(WITHIN_S):
            return Cause(**json.loads(await asking))
