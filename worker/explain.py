"""A mismatch, with what probably happened. What is looked at for that is looked at in another process."""

import json
from collections.abc import Mapping

from shared.errors import DigestMismatch
from shared.logs import get_logger
from shared.registration import Digest
from worker.artifact import Seen
from worker.contained import Contained, NoAnswer
from worker.diagnose import UNKNOWN, Cause, Evidence

log = get_logger(__name__)


class Explainer:
    """Explains mismatches by asking *diagnosis*, which runs `worker.diagnose`."""

    def __init__(self, diagnosis: Contained | None = None) -> None:
        self._diagnosis = diagnosis or Contained("worker.diagnose")

    def __call__(self, declared: str, computed: Digest, seen: Seen, versions: Mapping[str, str]) -> DigestMismatch:
        """Return the mismatch of *declared* and *computed*.

        *versions* are the checksums of this plugin's registered versions, each with its version.
        """
        cause = self._cause(
            Evidence(
                declared,
                computed.checksum,
                computed.size_bytes,
                bool(seen.content_encoding),
                versions.get(computed.checksum),
                versions.get(declared),
                bytes(seen.head),
            )
        )
        return DigestMismatch(
            f"The bytes at artifactUrl do not hash to the declared checksum. {cause.sentence}",
            cause=cause.word,
            declared=declared,
            computed=computed.checksum,
        )

    def _cause(self, evidence: Evidence) -> Cause:
        try:
            return Cause(**json.loads(self._diagnosis.ask(evidence.pack())))
        except NoAnswer as surprise:
            log.warning("mismatch not explained", reason=str(surprise), computed=evidence.computed)
            return UNKNOWN
