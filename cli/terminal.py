"""The one place that prints: nothing that a server sent, or a store holds, acts on the terminal it is shown on.

Each argument of `say` is one line, and whatever is hidden in it is shown by its number, a newline too. There is
nothing else to print with: `make check` refuses `print` and `click.echo`. JSON is for programs and holds what was
sent: it is ASCII, with JSON's own escapes.
"""

import json
import shutil
import sys

import click

from shared.characters import visible

MAX_LINE_CHARACTERS = 4000
"""Of a longer line the rest is left out; JSON has it."""


def say(*lines: str, err: bool = False) -> None:
    """Print *lines*, on stderr with *err*."""
    for line in lines:
        shown = visible(line[: MAX_LINE_CHARACTERS + 1])
        if len(shown) > MAX_LINE_CHARACTERS:
            shown = f"{shown[:MAX_LINE_CHARACTERS]} ... (of {len(line)} characters)"
        click.echo(shown, err=err)


def say_json(document: object, *, indent: int | None = 2) -> None:
    """Print *document* for a program to read, whole and unchanged."""
    click.echo(json.dumps(document, indent=indent))


def say_again(line: str) -> None:
    """Put *line* in place of the one before it, on stderr, as long as that is a terminal."""
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns
        click.echo(f"\r\x1b[K{visible(line[:columns])[: columns - 1]}", nl=False, err=True)


def clear() -> None:
    """Empty the screen."""
    click.clear()
