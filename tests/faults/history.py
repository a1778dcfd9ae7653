"""What clients were told, and whether the store keeps it.

A history is every answer with its times. `violations` compares it with what the store holds once everything is over,
and with the bytes that the artifact host knows to be true.
"""

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import combinations
from typing import Any

from shared.fields import normalised
from shared.registration import Plugin, Registration, RegistrationId, Status, Submission
from shared.store.counters import Counters
from shared.store.database import open_database
from shared.store.events import Events
from shared.store.registrations import Store
from tests.running import until

Document = Mapping[str, Any]
FINAL = {"registered", "rejected", "failed"}
OVERLAP = timedelta(milliseconds=5)
"""Two statements of one moment may bear times that differ by this, and rounding is in it."""


@dataclass(frozen=True)
class Answer:
    """One answer to a client: what it had asked with, when, and what it was told."""

    asked_at: float
    told_at: float
    status: int
    document: Document
    submission: Document | None = None
    """What had been submitted; None where a registration was asked for."""

    @property
    def registration_id(self) -> str | None:
        """The registration this answer names, if it names one."""
        named = str(self.document.get("instance") or "") if self.status >= 400 else str(self.document.get("id", ""))
        last = named.rpartition("/")[2]
        return last if last.startswith("registration-") else None

    @property
    def final_status(self) -> str | None:
        """The final state that this answer says a registration has reached, if it does; a refusal may be two."""
        if self.status in {200, 202} and self.registration_id:
            status = str(self.document["status"])
            return status if status in FINAL else None
        if self.status >= 400 and self.registration_id:
            return "failed" if self.document.get("retryable") else "rejected"
        return None

    @property
    def plugin(self) -> Document | None:
        """The plugin this answer shows, if it does."""
        return self.document if str(self.document.get("id", "")).startswith("plugin-") else None


@dataclass
class History:
    """Every answer that clients were given, from any thread."""

    answers: list[Answer] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, answer: Answer) -> None:
        """Add *answer*."""
        with self._lock:
            self.answers.append(answer)

    @property
    def accepted(self) -> set[str]:
        """The ids of all registrations that clients were told of."""
        with self._lock:
            return {answer.registration_id for answer in self.answers if answer.registration_id}


def violations(
    answers: Iterable[Answer],
    registrations: Sequence[Registration],
    plugins: Sequence[Plugin],
    true_checksums: Callable[[str], set[str]],
) -> list[str]:
    """Return a sentence for everything that must not be; *true_checksums* tells what a URL really served."""
    answers = sorted(answers, key=lambda answer: answer.told_at)
    by_id: dict[str, Registration] = {each.id: each for each in registrations}
    plugins_by_id: dict[str, Plugin] = {each.id: each for each in plugins}
    return [
        *_lost(answers, by_id, plugins_by_id),
        *_not_final(by_id),
        *_doubled(registrations, plugins),
        *_torn(registrations, plugins),
        *_changed(answers, by_id, plugins_by_id),
        *_false(answers, plugins, true_checksums),
    ]


def mistold(registrations: Sequence[Registration], feed: Sequence[Document]) -> list[str]:
    """Return a sentence for everything that must not be in *feed*, once all that ended was told (invariant 16)."""
    ended = {each.id: each for each in registrations if each.status.final}
    wrong = []
    if [each["seq"] for each in feed] != list(range(1, len(feed) + 1)):
        wrong.append(f"gap: the numbers of events are {[each['seq'] for each in feed]}")
    told = Counter(str(each["data"]["registrationId"]) for each in feed)
    for registration_id, times in told.items():
        if times > 1:
            wrong.append(f"doubled: {registration_id} was told of {times} times")
        if registration_id not in ended:
            wrong.append(f"false: {registration_id} was told of and has not ended")
    wrong += [f"lost: nobody was told of {each}" for each in ended if each not in told]
    for event in feed:
        it = ended.get(event["data"]["registrationId"])
        if it is not None and (event["type"], event["data"]["pluginId"]) != (
            f"registration.{it.status}",
            it.plugin_id,
        ):
            wrong.append(f"false: {it.id} is {it.status} and was told of as {event['type']}")
    return wrong


def _lost(
    answers: Sequence[Answer], registrations: Mapping[str, Registration], plugins: Mapping[str, Plugin]
) -> Iterable[str]:
    for answer in answers:
        if answer.registration_id and answer.registration_id not in registrations:
            yield f"lost: {answer.registration_id} was told to a client and is not in the store"
        if answer.plugin and answer.plugin["id"] not in plugins:
            yield f"lost: {answer.plugin['id']} was told to a client and is not in the store"
        if answer.submission is not None and answer.status in {200, 202}:
            if not (answer.registration_id or answer.plugin):
                yield f"lost: a submission was answered {answer.status} with neither a registration nor a plugin"
            elif not _agrees(answer.submission, answer.document):
                yield f"lost: a submission was answered with another's {answer.document['id']}"


URL = "artifactUrl"


def _agrees(submission: Document, told: Document) -> bool:
    """Whether what was told is of what was submitted; a name may be spelled, and a URL signed, as the first time."""
    same = all(told[key] == value for key, value in submission.items() if key not in {"name", "checksum", URL})
    return (
        same
        and told[URL].partition("?")[0] == submission[URL].partition("?")[0]
        and normalised(told["name"]) == normalised(submission["name"])
        and told["checksum"] == submission["checksum"].lower()
    )


def _not_final(registrations: Mapping[str, Registration]) -> Iterable[str]:
    for each in registrations.values():
        if not each.status.final:
            yield f"not final: {each.id} is {each.status} after {each.attempts} attempts"


def _doubled(registrations: Sequence[Registration], plugins: Sequence[Plugin]) -> Iterable[str]:
    identical: defaultdict[str, list[Registration]] = defaultdict(list)
    for each in registrations:
        identical[each.submission.fingerprint].append(each)
    for group in identical.values():
        for one, other in combinations(sorted(group, key=lambda each: each.created_at), 2):
            if not one.status.final or other.created_at < one.updated_at - OVERLAP:
                yield f"doubled: {one.id} and {other.id} were in flight together for one submission"
    names: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for plugin in plugins:
        names[normalised(plugin.name), plugin.version].append(plugin.id)
    for (name, version), ids in names.items():
        if len(ids) > 1:
            yield f"doubled: {name} {version} is registered as {' and '.join(ids)}"


def _torn(registrations: Sequence[Registration], plugins: Sequence[Plugin]) -> Iterable[str]:
    """Look for plugins without a registration, and the other way round (invariant 5)."""
    owners: defaultdict[str, list[Registration]] = defaultdict(list)
    for each in registrations:
        if (each.status is Status.REGISTERED) is not (each.plugin_id is not None):
            yield f"torn: {each.id} is {each.status} with plugin {each.plugin_id}"
        if each.plugin_id is not None:
            owners[each.plugin_id].append(each)
    known = {plugin.id for plugin in plugins}
    for plugin_id, owning in owners.items():
        if plugin_id not in known:
            yield f"torn: {owning[0].id} is registered as {plugin_id}, which is not there"
        if len(owning) > 1:
            yield f"doubled: {plugin_id} is of {' and '.join(each.id for each in owning)}"
    for plugin in plugins:
        if plugin.id not in owners:
            yield f"torn: {plugin.id} is of no registration"
        elif not _agrees(_wire(owners[plugin.id][0].submission), _wire(plugin)):
            yield f"torn: {plugin.id} is not what its registration submitted"


def _changed(
    answers: Sequence[Answer], registrations: Mapping[str, Registration], plugins: Mapping[str, Plugin]
) -> Iterable[str]:
    ends: dict[str, Answer] = {}
    for answer in answers:
        if answer.registration_id:
            yield from _changed_between(ends.get(answer.registration_id), answer)
            if answer.final_status:
                ends.setdefault(answer.registration_id, answer)
        if answer.plugin and answer.plugin["id"] in plugins:
            kept_plugin = _wire(plugins[answer.plugin["id"]])
            if kept_plugin != answer.plugin:
                yield f"changed: {answer.plugin['id']} was told to be {answer.plugin} and is {kept_plugin}"
    for registration_id, answer in ends.items():
        kept = registrations.get(registration_id)
        if kept is not None and kept.status != answer.final_status:
            yield f"changed: {registration_id} was told to be {answer.final_status} and is {kept.status}"
        elif kept is not None and kept.plugin_id != answer.document.get("pluginId") and answer.status < 400:
            yield f"changed: {registration_id} was told to be another plugin"


def _changed_between(end: Answer | None, later: Answer) -> Iterable[str]:
    """Compare what was told *later* with the first final state that was told."""
    if end is None:
        return
    if later.final_status is None and later.asked_at >= end.told_at:
        yield f"changed: {end.registration_id} was final and then told to be in flight"
    if later.final_status is not None and _outcome(later) != _outcome(end):
        yield f"changed: {end.registration_id} was told to be {_outcome(end)} and then {_outcome(later)}"


def _outcome(answer: Answer) -> tuple[object, ...]:
    problem = answer.document if answer.status >= 400 else answer.document.get("problem") or {}
    return (answer.final_status, problem.get("code"))


def _false(
    answers: Sequence[Answer], plugins: Sequence[Plugin], true_checksums: Callable[[str], set[str]]
) -> Iterable[str]:
    shown = [answer.plugin for answer in answers if answer.plugin] + [_wire(plugin) for plugin in plugins]
    for plugin in {(each["id"], each["checksum"]): each for each in shown}.values():
        if plugin["checksum"] not in true_checksums(plugin["artifactUrl"]):
            yield f"false: {plugin['id']} has {plugin['checksum']}, and its artifact was never of that digest"


def _wire(value: Submission | Plugin) -> Document:
    return value.model_dump(mode="json", by_alias=True)


def everything_in(database_url: str) -> tuple[list[Registration], list[Plugin]]:
    """Return all registrations and plugins of a store."""
    database = open_database(database_url)
    try:
        store = Store(database)
        registrations: list[Registration] = []
        while page := store.registrations(limit=1000, before=registrations[-1].id if registrations else None):
            registrations += page
        plugins: list[Plugin] = []
        while found := store.plugins(limit=1000, before=plugins[-1].id if plugins else None):
            plugins += found
        return registrations, plugins
    finally:
        database.close()


def everything_told(database_url: str) -> list[Document]:
    """Return the feed of a store, once the registry has told of all that ended."""
    database = open_database(database_url)
    try:
        until(lambda: Counters(database).all_counted, what="that all that ended is told")
        told: list[Document] = []
        while page := Events(database).after(len(told), limit=500).events:
            told += [json.loads(each.document) for each in page]
        return told
    finally:
        database.close()


def in_flight(database_url: str) -> list[RegistrationId]:
    """Return the ids of all registrations that are not final."""
    database = open_database(database_url)
    try:
        store = Store(database)
        # Asked for twice: one that is put back while the others are read would be in neither answer.
        found = [
            each.id
            for status in ("queued", "verifying", "queued")
            for each in store.registrations(limit=100_000, filters={"status": status})
        ]
        return list(dict.fromkeys(found))
    finally:
        database.close()
