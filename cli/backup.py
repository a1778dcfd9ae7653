"""`backup`, `restore`, `check-store`: a store is copied, put back, and looked at whether it holds together."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click
from plugin_registry_client.command.asked import json_option
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.errors import ALERTS, USAGE

from cli.state import StateFolder
from shared.errors import StoreUnavailable
from shared.settings import BadSettings, Settings, read_settings
from shared.store import file
from shared.store.check import faults_of
from shared.store.database import SchemaMismatch, open_database
from shared.store.events import Events
from shared.store.schema import check_schema
from shared.urls import sqlite_url

_STATE = click.option("--state", type=click.Path(path_type=Path), help="State folder (default: REGISTRY_STATE_DIR).")
_FILE = click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@_FILE
@_STATE
def backup(path: Path, state: Path | None) -> None:
    """Copy the embedded store to FILE, while it is used or not."""
    store = _store_file(state, 'pg_dump --format=custom --file={file} "$REGISTRY_DATABASE_URL"', path)
    if path.exists():
        raise Refusal(f"{path} is there already: name a new file.", USAGE)
    try:
        file.copy(store, path)
    except (OSError, sqlite3.Error) as error:
        raise Refusal(f"The store could not be copied to {path}: {_why(error)}.") from error
    _refuse_broken(path)
    say(f"The store is copied to {path}. `plugin-registry restore` puts it back.", err=True)


@click.command()
@_FILE
@_STATE
def restore(path: Path, state: Path | None) -> None:
    """Put FILE, a backup, in the place of the embedded store, while that is stopped."""
    command = 'pg_restore --clean --if-exists --single-transaction --dbname="$REGISTRY_DATABASE_URL" {file}'
    store = _store_file(state, command, path, must_exist=False)
    if not path.exists():
        raise Refusal(f"There is no {path}.", USAGE)
    if store.exists() and path.samefile(store):
        raise Refusal(f"{path} is the store itself: move it elsewhere, and restore it from there.", USAGE)
    folder = StateFolder(_settings(state).state_dir)
    folder.open()
    try:
        new = store.with_name(f"{store.name}.restored")
        try:
            file.copy(path, new)
        except (OSError, sqlite3.Error) as error:
            raise Refusal(f"{path} could not be read: {_why(error)}.", USAGE) from error
        try:
            _refuse_broken(new, called=path)
            _skip_numbers(new)
        except Refusal:
            new.unlink()
            raise
        aside = f"{store.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        file.set_aside(store, aside)
        new.rename(store)
    finally:
        folder.close()
    say(f"{path} is the store now. What was there before is {store.with_name(aside)}.", err=True)


@click.command("check-store")
@_STATE
@json_option
def check_store(state: Path | None, json_wanted: bool) -> None:
    """Look at all of the store, embedded or not: whether it holds together.

    Exit status: 0 it does, 8 something is wrong with it.
    """
    settings = _settings(state)
    if settings.embedded_store and not (settings.store_file and settings.store_file.exists()):
        raise Refusal(f"There is no store in {settings.state_dir}.", USAGE)
    try:
        with closing(open_database(settings.database_url)) as database:
            check_schema(database)
            found = list(faults_of(database))
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(str(error)) from error
    if json_wanted:
        say_json({"faults": found})
    else:
        say(*(found or ["The store holds together."]))
    if found:
        raise click.exceptions.Exit(ALERTS)


def _skip_numbers(path: Path) -> None:
    """Have the feed of a restored store go on well behind what its readers have read of the one before.

    Raises:
        Refusal: it cannot be written.
    """
    try:
        with closing(open_database(sqlite_url(path.absolute()))) as database:
            Events(database).skip()
    except StoreUnavailable as error:
        raise Refusal(str(error)) from error


def _refuse_broken(path: Path, *, called: Path | None = None) -> None:
    """Make sure that *path* is a store of ours that holds together.

    Raises:
        Refusal: it is not.
    """
    try:
        with closing(open_database(sqlite_url(path.absolute()))) as database:
            found = list(faults_of(database))
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(f"{called or path}: {error}") from error
    if found:
        raise Refusal(f"{called or path} does not hold together, and nothing was changed.", details=found)


def _store_file(state: Path | None, command: str, path: Path, *, must_exist: bool = True) -> Path:
    """Return the file that the embedded store is.

    Raises:
        Refusal: there is none; where the store is PostgreSQL it says what *command* does the same there.
    """
    settings = _settings(state)
    if settings.store_file is None:
        raise Refusal(
            "The store is PostgreSQL, which has its own way: " + command.format(file=path),
            USAGE,
            details=[
                "The broker needs no backup. Then `plugin-registry check-store` says whether it holds together."
            ],
        )
    if must_exist and not settings.store_file.exists():
        raise Refusal(f"There is no store in {settings.state_dir}.", USAGE)
    return settings.store_file


def _settings(state: Path | None) -> Settings:
    try:
        return read_settings(**({"state_dir": state} if state else {}))
    except BadSettings as error:
        raise Refusal(f"{error}.", USAGE) from error


def _why(error: OSError | sqlite3.Error) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
