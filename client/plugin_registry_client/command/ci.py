"""`ci`: what a CI job runs. It registers, and tells the platform it runs on what became of it, in that one's own way.

Every option can come from a variable as well, ``PLUGIN_REGISTRY_`` and its name: so an action or a component hands
its inputs over without writing any of them into a script.

A runner of GitHub's takes commands from whatever is printed. So there all text for people goes to stderr, in one
order, and while it may hold what others wrote, commands are stopped.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click

from plugin_registry_client.client import submission
from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.declared import (
    Declared,
    Undeclared,
    read_declared,
    text_or_file,
    the_checksum,
)
from plugin_registry_client.command.many import Entry, entries_of, register_all, tell_all
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.errors import USAGE, RegistryError

NOWHERE = Path()
"""The file of what no file declares."""
ANNOTATIONS = 10
"""So many of one step GitHub shows."""
MOST_CHARACTERS = 3000
OUTCOMES = ("plugin-id", "registration-id", "checksum", "outcome")
"""What is told to later steps, of the first plugin."""


def _input(name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option of `register`'s, which can come from a variable as well."""
    words = [f"--{name}", *([options.pop("called")] if "called" in options else [])]
    return click.option(*words, envvar=_variable(name), show_envvar=True, **options)


def _variable(name: str) -> str:
    return f"PLUGIN_REGISTRY_{name.upper().replace('-', '_')}"


@click.command()
@click.option(
    "--from",
    "declared",
    multiple=True,
    type=click.Path(path_type=Path),
    help="As of `register`; repeatable. [env var: PLUGIN_REGISTRY_FROM, one a line]",
)
@_input("name", help="As of `register`, and so on.")
@_input("version")
@_input("type", called="plugin_type", type=click.Choice(["log", "metric", "trace"]))
@_input("url")
@_input("checksum")
@_input("file", called="artifact", type=click.Path(path_type=Path))
@_input("runtime")
@_input("config-schema")
@_input("timeout", default=300.0, show_default=True, type=click.FloatRange(min=0))
@_input("dry-run", is_flag=True, help="Check what can be checked without a download, and change nothing.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write a JUnit report there, which GitLab shows.")
@click.option(
    "--dotenv", type=click.Path(path_type=Path), help="Write the outcome there, as variables for later jobs."
)
@json_option
def ci(  # noqa: PLR0917  # one for each option
    declared: tuple[Path, ...],
    name: str | None,
    version: str | None,
    plugin_type: str | None,
    url: str | None,
    checksum: str | None,
    artifact: Path | None,
    runtime: str | None,
    config_schema: str | None,
    timeout: float,
    dry_run: bool,
    junit: Path | None,
    dotenv: Path | None,
    json_wanted: bool,
) -> None:
    """Register in a CI job: one plugin, or all that files declare. Ends as `register --from` does.

    On GitHub it annotates the lines that declare what failed, writes a summary, and sets the outputs plugin-id,
    registration-id, checksum and outcome. On GitLab --junit and --dotenv are for `artifacts: reports`.
    """
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    described: dict[str, Any] = {
        "--name": name,
        "--version": version,
        "--type": plugin_type,
        "--url": url,
        "--checksum": checksum,
    }
    described |= {"--file": artifact, "--runtime": runtime, "--config-schema": config_schema}
    entries: list[Entry] = []
    refusal: Refusal | None = None
    with _no_commands() if on_github else nullcontext():
        try:
            entries = entries_of(_wanted(declared or _named_in_the_environment(), described), quiet=False)
            register_all(connected(), entries, timeout_s=timeout, dry_run=dry_run, quiet=False)
        except (Refusal, RegistryError) as error:  # of all of it: what is declared, the token, or a signal
            refusal = error if isinstance(error, Refusal) else Refusal.of(error)
            refusal.show()
        if json_wanted:
            say_json(refusal.document if refusal else {"outcomes": [each.document for each in entries]})
        else:
            tell_all(entries, err=on_github)
    ended = _Ended(entries, refusal)
    wrong = [*(_tell_github(ended, os.environ) if on_github else ())]
    if junit is not None:
        wrong += _written(junit, ended.junit)
    if dotenv is not None:
        wrong += _written(dotenv, "".join(f"{_variable(key)}={value}\n" for key, value in ended.outputs))
    for each in wrong:
        say(f"plugin-registry: {each}", err=True)
    raise click.exceptions.Exit(ended.exit_status or (USAGE if wrong else 0))


def _named_in_the_environment() -> tuple[Path, ...]:
    lines = os.environ.get(_variable("from"), "").splitlines()
    return tuple(Path(each.strip()) for each in lines if each.strip())


def _wanted(declared: Sequence[Path], described: Mapping[str, Any]) -> list[Declared]:
    """Return what is to be registered: all that is *declared*, or the one that is *described* by options.

    Raises:
        Refusal: neither, or both.
    """
    if declared:
        for option, value in described.items():
            if value is not None:
                raise Refusal(f"{option} does not go with --from.", USAGE)
        return read_declared(declared)
    for option in ("--name", "--version", "--type", "--url"):
        if described[option] is None:
            raise Refusal(f"Missing option '{option}'; or name a file with --from.", USAGE)
    document = submission(
        described["--name"],
        described["--version"],
        described["--type"],
        described["--url"],
        the_checksum(described["--checksum"], described["--file"]),
        text_or_file(described["--config-schema"] or "{}"),
        described["--runtime"] or "",
    )
    return [Declared(document, NOWHERE, 0)]


@dataclass(frozen=True)
class _Ended:
    """How it ended: each of *entries*, and the *refusal* of all of it, if there was one."""

    entries: Sequence[Entry]
    refusal: Refusal | None

    @property
    def exit_status(self) -> int:
        """That of the refusal, or of the first that failed."""
        if self.refusal is not None:
            return self.refusal.exit_code
        return next((each.error.exit_status for each in self.entries if each.error), 0)

    @property
    def outputs(self) -> list[tuple[str, str]]:
        """What is told to later steps: of the first plugin, and whether all is well."""
        first = self.entries[0] if self.entries else None
        plugin = first.plugin if first else None
        registration = first.registration if first else None
        word = next((each.word for each in self.entries if each.error), first.word if first else "")
        values = (
            plugin.id if plugin else "",
            registration.id if registration else "",
            plugin.checksum if plugin else "",
            f"failed ({self.refusal.document.get('code')})" if self.refusal else word,
        )
        return [(key, _line(value)) for key, value in zip(OUTCOMES, values, strict=True)]

    @property
    def failures(self) -> Iterator[tuple[Path, int, str]]:
        """What failed: the file and the line that declare it, line 0 where none does, and why."""
        for entry in self.entries:
            if entry.error:
                told = "\n".join([f"{entry.declared.title}: {entry.error}", *entry.error.details])
                yield entry.declared.file, entry.declared.line, told
        if isinstance(self.refusal, Undeclared):
            yield from self.refusal.wrong
        elif self.refusal is not None:
            yield NOWHERE, 0, "\n".join([self.refusal.message, *self.refusal.details])

    @property
    def junit(self) -> str:
        """A JUnit report: each plugin is a test, and so is a refusal of all of it."""
        failed = sum(each.error is not None for each in self.entries) + (self.refusal is not None)
        totals = {"tests": str(len(self.entries) + (self.refusal is not None)), "failures": str(failed)}
        suite = ET.Element("testsuite", {"name": "plugin registry", **totals})
        for entry in self.entries:
            attributes = {"classname": "plugin registry", "name": _line(entry.declared.title)}
            if entry.declared.line:
                attributes["file"] = _line(str(entry.declared.file))
            case = ET.SubElement(suite, "testcase", attributes)
            if entry.error:
                _failed(case, str(entry.error), entry.error.details)
        if self.refusal is not None:
            case = ET.SubElement(suite, "testcase", {"classname": "plugin registry", "name": "all of it"})
            _failed(case, self.refusal.message, self.refusal.details)
        return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _failed(case: ET.Element, message: str, details: Sequence[str]) -> None:
    failure = ET.SubElement(case, "failure", {"message": _line(message)})
    failure.text = "\n".join(map(_line, details))


def _line(text: str) -> str:
    """Return *text*, which a registry may have sent, as one line that holds nothing else."""
    return "".join(each if each.isprintable() else " " for each in text)


# --- GitHub (https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands) ------------


@contextmanager
def _no_commands() -> Iterator[None]:
    """Have nothing that is printed on stderr in here, some of which others wrote, be a command to the runner."""
    word = secrets.token_hex(16)
    say(f"::stop-commands::{word}", err=True)
    try:
        yield
    finally:
        say(f"::{word}::", err=True)


def _tell_github(ended: _Ended, environment: Mapping[str, str]) -> list[str]:
    """Annotate, set the outputs, write the summary; return what could not be written."""
    failures = [*ended.failures]
    for number, (file, line, told) in enumerate(failures[:ANNOTATIONS]):
        more = len(failures) - ANNOTATIONS if number == ANNOTATIONS - 1 else 0
        where = {"file": str(file.resolve()), "line": str(line)} if line else {}
        said = f"{told}\nAnd {more} more: see the summary." if more > 0 else told
        say(_command("error", said[:MOST_CHARACTERS], where), err=True)
    wrong: list[str] = []
    if output := environment.get("GITHUB_OUTPUT"):
        wrong += _written(Path(output), "".join(f"{key}={value}\n" for key, value in ended.outputs), mode="a")
    if summary := environment.get("GITHUB_STEP_SUMMARY"):
        wrong += _written(Path(summary), _summary(ended), mode="a")
    return wrong


def _command(kind: str, text: str, where: Mapping[str, str]) -> str:
    """Return a workflow command; whatever a registry sent, it is one command and no other."""
    told = ",".join(f"{key}={_escaped(value, also=':,')}" for key, value in where.items())
    return f"::{kind}{' ' if told else ''}{told}::{_escaped(text)}"


def _escaped(text: str, also: str = "") -> str:
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return "".join(each if each.isprintable() else " " for each in text)


def _summary(ended: _Ended) -> str:
    rows = "".join(
        f"| {_cell(each.declared.title)} | {_cell(each.word)} | {_cell(each.plugin.id if each.plugin else '')} "
        f"| {_cell(str(each.error or ''))} |\n"
        for each in ended.entries
    )
    refused = f"{_cell(' '.join([ended.refusal.message, *ended.refusal.details]))}\n\n" if ended.refusal else ""
    table = f"| plugin | outcome | id | why |\n| --- | --- | --- | --- |\n{rows}\n" if rows else ""
    return f"### Plugin registry\n\n{refused}{table}"


def _cell(text: str) -> str:
    """Return *text* for a cell of a table in Markdown, in which it is nothing but text."""
    escaped = _line(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{each}" if each in "\\`*_[]|!#~$@:" else each for each in escaped)


def _written(file: Path, text: str, *, mode: str = "w") -> list[str]:
    """Write *text*; return what there is to be said where that is not possible."""
    try:
        with file.open(mode, encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)
    except OSError as error:
        return [f"Cannot write {file}: {error.strerror}."]
    return []
