"""Many registrations at once, in one table: submitted a few at a time, looked at in turns, safe to run again."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plugin_registry_client.client import Client, pause_s
from plugin_registry_client.command.declared import Declared
from plugin_registry_client.command.telling import SAID_EVERY_S, Teller, bar, stoppable
from plugin_registry_client.command.terminal import Block, say
from plugin_registry_client.errors import STILL_RUNNING, RegistryError, RegistryInTrouble, StillRunning, Unreachable
from plugin_registry_client.results import Plugin, Registration

AT_ONCE = 32
ROUND_S = 1.0
SHOWN_EVERY_S = 0.2


class NotSubmitted(RegistryError):
    """It was not asked for: the time was over."""

    exit_status = STILL_RUNNING
    code = "not-submitted"


@dataclass
class Entry:
    """One of many, and what has become of it so far."""

    declared: Declared
    teller: Teller
    registration: Registration | None = None
    plugin: Plugin | None = None
    free: bool = False
    """Of a dry run: nothing stands in its way."""
    error: RegistryError | None = None
    met: RegistryError | None = None
    """Why the registry could not be asked when it was asked last."""

    def give_up(self, timeout_s: float) -> None:
        """Let it be as it is: the time is over."""
        if self.registration is not None:
            self.error = StillRunning(self.registration.document, timeout_s)
        else:
            self.error = self.met or NotSubmitted("The time was over before it was its turn; it was not submitted.")

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.free or self.plugin is not None or self.error is not None

    @property
    def line(self) -> str:
        """What the table shows of it."""
        if self.over or self.registration is None:
            return f"{self.declared.title}  {self.word if self.over else 'to be submitted'}"
        return bar(self.registration.document)

    @property
    def word(self) -> str:
        """How it ended, in a word or two."""
        if self.error is not None:
            return f"failed ({getattr(self.error, 'cause', None) or self.error.code})"
        return "registered" if self.plugin else "free to be registered"

    @property
    def document(self) -> dict[str, Any]:
        """How it ended, for a program."""
        found: dict[str, Any] = {
            "name": self.declared.submission["name"],
            "version": self.declared.submission["version"],
            "file": str(self.declared.file),
            "line": self.declared.line,
            "outcome": "failed" if self.error else "registered" if self.plugin else "dry-run",
            "registrationId": self.registration.id if self.registration else None,
        }
        if self.plugin is not None:
            found["plugin"] = self.plugin.document
        if self.error is not None:
            found |= {"exitStatus": self.error.exit_status, "problem": self.error.document}
        return found


def entries_of(declared: Sequence[Declared], *, quiet: bool) -> list[Entry]:
    """Return an entry for each that is *declared*, in their order."""
    return [Entry(each, Teller(quiet=quiet or sys.stderr.isatty())) for each in declared]


def register_all(client: Client, entries: Sequence[Entry], *, timeout_s: float, dry_run: bool, quiet: bool) -> None:
    """Register all of *entries*, which know then how each ended.

    What one of them meets ends none of the others. A registry that is away, or has no place for this token, is waited
    for until *timeout_s* are over.

    Raises:
        Refusal: somebody stopped us; it says how to go on.
    """
    give_up = time.monotonic() + timeout_s
    progress, failed = _Progress(quiet=quiet), 0
    with stoppable("what was submitted goes on: to run the same again, which is safe, follows it"):
        while open_ones := [each for each in entries if not each.over]:
            begun = [each for each in open_ones if each.registration is not None]
            fresh = [each for each in open_ones if each.registration is None][: max(0, AT_ONCE - len(begun))]
            well = True
            for entry in [*begun, *fresh]:
                left_s = give_up - time.monotonic()
                if left_s <= 0:
                    entry.give_up(timeout_s)
                elif well:  # else whoever comes behind would meet the same
                    well = _advance(client, entry, dry_run=dry_run, left_s=left_s)
                progress.show(entries)
            failed = 0 if well else failed + 1
            if begun or not well:
                time.sleep(min(ROUND_S if well else pause_s(failed + 2), max(0.0, give_up - time.monotonic())))


class _Progress:
    """Shows how far all are: a table on a terminal, elsewhere how many have ended, every half a minute."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._block = Block()
        self._shown_at = self._said_at = time.monotonic()

    def show(self, entries: Sequence[Entry]) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if self._quiet:
            return
        if now - self._shown_at >= SHOWN_EVERY_S:
            self._block.show(_table(entries))
            self._shown_at = now
        if not sys.stderr.isatty() and now - self._said_at >= SAID_EVERY_S:
            say(f"{_table(entries)[0]}.", err=True)
            self._said_at = now


def _advance(client: Client, entry: Entry, *, dry_run: bool, left_s: float) -> bool:
    """Submit *entry*, or look at how far it is; return whether the registry is there for it."""
    try:
        if dry_run:
            entry.plugin = client.dry_run(entry.declared.submission)
            entry.free = entry.plugin is None
            return True
        if entry.registration is None:
            found = client.submit(entry.declared.submission)
        else:
            found = client.registration(entry.registration.id)
    except (Unreachable, RegistryInTrouble) as error:
        entry.met = error
        return False
    except RegistryError as error:
        entry.error = error
        return True
    if isinstance(found, Plugin):
        entry.plugin = found
        return True
    entry.registration = found
    entry.teller.tell(found)
    if found.final:
        try:
            entry.plugin = client.outcome_of(found, timeout_s=left_s)
        except RegistryError as error:  # what it ended with, whatever that is
            entry.error = error
    return True


def _table(entries: Sequence[Entry]) -> list[str]:
    """Return a line for each that has not ended, those that failed, and how many have."""
    failed = [each for each in entries if each.error]
    running = [each for each in entries if not each.over]
    ended = f"{sum(each.over for each in entries)} of {len(entries)} have ended, {len(failed)} of them badly"
    return [ended, *(each.line for each in failed), *(each.line for each in running)]


def tell_all(entries: Sequence[Entry], *, err: bool = False) -> None:
    """Say how each ended: a line on stdout, or stderr with *err*; of those that failed, why, on stderr."""
    for entry in entries:
        plugin = f"  {entry.plugin.id}" if entry.plugin else ""
        say(f"{entry.word}  {entry.declared.title}{plugin}", err=err)
    for entry in entries:
        if entry.error:
            where = f"{entry.declared.where}: " if entry.declared.line else ""
            say(f"{where}{entry.declared.title}: {entry.error}", err=True)
            say(*(f"  {each}" for each in entry.error.details), err=True)
