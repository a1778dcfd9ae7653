"""The one place that prints: nothing that a server sent, or a store holds, acts on the terminal it is shown on.

Each argument of `say` is one line, and whatever is hidden in it is shown by its number, a newline too. There is
nothing else to print with: `make check` refuses `print` and `click.echo`. JSON is for programs and holds what was
sent: it is ASCII, with JSON's own escapes.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click

from plugin_registry_client.command.visible import visible

MAX_LINE_CHARACTERS = 4000
"""Of a longer line the rest is left out; JSON has it."""
# What terminals since xterm understand: another screen without a cursor, and back; where to begin; what to empty.
OWN_SCREEN, USUAL_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
UP = "\x1b[{}A"
TOP_LEFT, REST_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


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


class Block:
    """Lines on stderr that are shown again in their own place, as long as that is a terminal."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, lines: Sequence[str]) -> None:
        """Put *lines* in place of those before; no more than fit."""
        if not sys.stderr.isatty():
            return
        columns, rows = shutil.get_terminal_size()
        fitting = [visible(each[:columns])[: columns - 1] for each in lines[: max(1, rows - 2)]]
        up = UP.format(self._shown) if self._shown else ""
        text = up + "".join(f"{each}{REST_OF_LINE}\n" for each in fitting) + BELOW
        click.echo(text, nl=False, err=True)
        self._shown = len(fitting)


@contextmanager
def screen() -> Iterator[Callable[[Sequence[str]], None]]:
    """Yield what shows lines on a screen of their own: as many as fit, each as far as it fits, without flickering.

    What was on the terminal before is there again afterwards. Where stdout is no terminal, lines are printed.
    """
    if not sys.stdout.isatty():
        yield lambda lines: say(*lines)
        return
    signal.signal(signal.SIGTERM, _leave_at_once)
    click.echo(OWN_SCREEN, nl=False)
    try:
        yield _show
    finally:
        click.echo(USUAL_SCREEN, nl=False)


def _leave_at_once(number: int, _frame: FrameType | None) -> None:
    """End as the signal would have it, but leave no terminal behind without a cursor."""
    os.write(sys.stdout.fileno(), USUAL_SCREEN.encode())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _show(lines: Sequence[str]) -> None:
    columns, rows = shutil.get_terminal_size()
    shown = [visible(each[:columns])[:columns] for each in lines[: rows - 1]]
    hidden = len(lines) - len(shown)
    shown.append(f"... and {hidden} more lines, for a larger window" if hidden else "Ctrl-C ends this.")
    click.echo(TOP_LEFT + "\n".join(f"{each[:columns]}{REST_OF_LINE}" for each in shown) + BELOW, nl=False)
