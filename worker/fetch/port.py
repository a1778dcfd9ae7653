"""The port: how whoever verifies has the bytes at a URL. It knows no socket; `hops.py` does, a test has its own."""

from typing import Protocol

from worker.attempt import Attempt
from worker.digest.intake import Intake
from worker.slots import Slot


class Fetch(Protocol):
    """How the bytes at a URL are had."""

    async def __call__(self, url: str, attempt: Attempt, slot: Slot, intake: Intake, /) -> None:
        """Put what is at *url* into *intake*, to its end, holding the *slot* of whom is connected to.

        Raises:
            Rejected: what is there, or where it is, rules the artifact out.
            Unavailable: it could not be had this time.
            Busy: there is no slot for where a redirect leads.
        """
        ...
