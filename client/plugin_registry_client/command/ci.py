"""`ci`: what a CI job runs. It registers, and tells the platform it runs on what became of it, in that one's own way.

Every option can come from a variable as well, ``PLUGIN_`` and its name: so an action or a component hands its inputs
over without writing any of them into a script.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click

from plugin_registry_client.client import submission
from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.declared import Declared, checksum_of, read_declared
from plugin_registry_client.command.many import Entry, register_all, tell_all
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.errors import USAGE

NOWHERE = Path()
"""The file of what no file declares."""
OUTCOMES = ("plugin-id", "registration-id", "checksum", "outcome")
"""What is told to later steps, of the first plugin."""


def _input(name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option of `register`'s, which can come from a variable as well."""
    words = [f"--{name}", *([options.pop("called")] if "called" in options else [])]
    return click.option(*words, envvar=f"PLUGIN_{name.upper().replace('-', '_')}", show_envvar=True, **options)


@click.command()
@_input(
    "from", called="declared", multiple=True, type=click.Path(path_type=Path), help="As of `register`; repeatable."
)
@_input("name", help="As of `register`, and so on.")
@_input("version")
@_input("type", called="plugin_type", type=click.Choice(["log", "metric", "trace"]))
@_input("url")
@_input("checksum")
@_input("file", called="artifact", type=click.Path(path_type=Path))
@_input("runtime", default="")
@_input("config-schema", default="{}")
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
    runtime: str,
    config_schema: str,
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
    alone = {"--name": name, "--version": version, "--type": plugin_type, "--url": url}
    if declared:
        for option, value in {**alone, "--checksum": checksum, "--file": artifact}.items():
            if value is not None:
                raise click.UsageError(f"{option} does not go with --from.")
        wanted = read_declared(declared)
    else:
        for option, value in alone.items():
            if value is None:
                raise click.UsageError(f"Missing option '{option}'; or name a file with --from.")
        described = [str(each) for each in alone.values()]
        wanted = [_one(described, checksum, artifact, config_schema, runtime)]
    with _no_commands(os.environ):
        entries = register_all(connected(), wanted, timeout_s=timeout, dry_run=dry_run, quiet=False)
        if json_wanted:
            say_json({"outcomes": [each.document for each in entries]})
        else:
            tell_all(entries)
    _tell_github(entries, os.environ)
    if junit is not None:
        _written(junit, lambda: _junit(entries))
    if dotenv is not None:
        _written(dotenv, lambda: "".join(f"{_variable(key)}={value}\n" for key, value in _outcome(entries)))
    first = next((each.error for each in entries if each.error), None)
    if first is not None:
        raise click.exceptions.Exit(first.exit_status)


def _one(
    described: Sequence[str], checksum: str | None, artifact: Path | None, config_schema: str, runtime: str
) -> Declared:
    if (checksum is None) == (artifact is None):
        raise Refusal("Give either --checksum or --file.", USAGE)
    try:
        declared = checksum or checksum_of(Path(str(artifact)))
    except OSError as error:
        raise Refusal(f"Cannot read {artifact}: {error.strerror}.", USAGE) from error
    name, version, plugin_type, url = described
    return Declared(submission(name, version, plugin_type, url, declared, config_schema, runtime), NOWHERE, 0)


def _outcome(entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    """Yield what is told to later steps: of the first plugin, and whether all is well."""
    first = entries[0]
    values = (
        first.plugin.id if first.plugin else "",
        first.registration.id if first.registration else "",
        first.declared.submission["checksum"],
        next((each.word for each in entries if each.error), first.word),
    )
    for key, value in zip(OUTCOMES, values, strict=True):
        yield key, _line(value)


def _variable(key: str) -> str:
    return f"PLUGIN_REGISTRY_{key.upper().replace('-', '_')}"


def _line(text: str) -> str:
    """Return *text*, which a registry may have sent, as one line that holds nothing else."""
    return "".join(each if each.isprintable() else " " for each in text)


# --- GitHub (https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands) ------------


@contextmanager
def _no_commands(environment: Mapping[str, str]) -> Iterator[None]:
    """Have nothing that is printed in here, of which some was sent by others, be a command to the runner."""
    if environment.get("GITHUB_ACTIONS") != "true":
        yield
        return
    word = secrets.token_hex(16)
    say(f"::stop-commands::{word}")
    try:
        yield
    finally:
        say(f"::{word}::")


def _tell_github(entries: Sequence[Entry], environment: Mapping[str, str]) -> None:
    if environment.get("GITHUB_ACTIONS") != "true":
        return
    for entry in entries:
        if entry.error:
            where = {} if entry.declared.file == NOWHERE else {"file": str(entry.declared.file)}
            where |= {"line": str(entry.declared.line)} if where else {}
            said = "\n".join([f"{entry.declared.title}: {entry.error}", *entry.error.details])
            say(_command("error", said, where))
    if output := environment.get("GITHUB_OUTPUT"):
        _appended(Path(output), "".join(f"{key}={value}\n" for key, value in _outcome(entries)))
    if summary := environment.get("GITHUB_STEP_SUMMARY"):
        _appended(Path(summary), _summary(entries))


def _command(kind: str, text: str, where: Mapping[str, str]) -> str:
    """Return a workflow command; whatever a registry sent, it is one command and no other."""
    told = ",".join(f"{key}={_escaped(value, also=':,')}" for key, value in where.items())
    return f"::{kind}{' ' if told else ''}{told}::{_escaped(text)}"


def _escaped(text: str, also: str = "") -> str:
    for character in f"%\r\n{also}":
        text = text.replace(character, f"%{ord(character):02X}")
    return "".join(each if each.isprintable() else " " for each in text)


def _summary(entries: Sequence[Entry]) -> str:
    rows = "".join(
        f"| {_cell(each.declared.title)} | {_cell(each.word)} | {_cell(each.plugin.id if each.plugin else '')} "
        f"| {_cell(str(each.error or ''))} |\n"
        for each in entries
    )
    return f"### Plugin registry\n\n| plugin | outcome | id | why |\n| --- | --- | --- | --- |\n{rows}\n"


def _cell(text: str) -> str:
    """Return *text* for a cell of a table in Markdown, in which it is nothing but text."""
    escaped = _line(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{each}" if each in "\\`*_[]|!#~" else each for each in escaped)


# --- GitLab ------------------------------------------------------------------------------------------------


def _junit(entries: Sequence[Entry]) -> str:
    """Return a JUnit report: each plugin is a test."""
    failed = [each for each in entries if each.error]
    totals = {"tests": str(len(entries)), "failures": str(len(failed))}
    suite = ET.Element("testsuite", {"name": "plugin registry", **totals})
    for entry in entries:
        attributes: dict[str, Any] = {"classname": "plugin registry", "name": _line(entry.declared.title)}
        if entry.declared.file != NOWHERE:
            attributes["file"] = str(entry.declared.file)
        case = ET.SubElement(suite, "testcase", attributes)
        if entry.error:
            failure = ET.SubElement(case, "failure", {"message": _line(str(entry.error))})
            failure.text = "\n".join(map(_line, entry.error.details))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _written(file: Path, text: Callable[[], str]) -> None:
    try:
        file.write_text(text(), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise Refusal(f"Cannot write {file}: {error.strerror}.", USAGE) from error


def _appended(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8", errors="backslashreplace") as opened:
        opened.write(text)
