"""An embedded store as a file: copied while it is used, put back, and known for one whole.

What was committed last SQLite keeps in a second file, `-wal`. Whoever copies a backup over the first and leaves that
has one replayed into the other: the store is malformed then, or the backup is silently not there. So each start
writes its moment into the store, all of it in the first file, and beside the store (`mark_start`). Where a crash left
a `-wal` behind, the first file, read alone, has to be the one of the last start (`start_in`).
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from shared.store.database import NOW_SQL

SUFFIXES = ("", "-wal", "-shm")


def left_behind(file: Path) -> bool:
    """Whether a process that was killed left something that is not in *file* itself."""
    wal = _beside(file, "-wal")
    return wal.exists() and wal.stat().st_size > 0


def mark_start(file: Path) -> int:
    """Write into the store that it is started now, and into *file* all that was beside it; return that moment."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        (now,) = connection.execute(
            "INSERT INTO marks (name, at) VALUES ('start', " + NOW_SQL["sqlite"] + ") "  # noqa: S608
            "ON CONFLICT (name) DO UPDATE SET at = excluded.at RETURNING at"
        ).fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return int(now)


def start_in(file: Path) -> int | None:
    """Return the moment of the last start in *file* alone, whatever lies beside it; None where none was noted."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro&immutable=1", uri=True)) as connection,
    ):
        row = connection.execute("SELECT at FROM marks WHERE name = 'start'").fetchone()
        return int(row[0]) if row else None
    return None


def fold(file: Path) -> None:
    """Write into *file* all that is beside it, once nobody uses it: then it is the whole store."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def copy(source: Path, target: Path) -> None:
    """Copy the store in *source*, which may be in use, to *target*, which is there as a whole or not at all.

    Raises:
        OSError, sqlite3.Error: it could not be copied.
    """
    unfinished = _beside(target, ".unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as original,
            closing(sqlite3.connect(unfinished)) as made,
        ):
            original.backup(made)
            made.execute("PRAGMA journal_mode=DELETE").fetchone()  # one file, whatever is beside it
        _sync(unfinished)
        unfinished.replace(target)
        _sync(target.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def set_aside(file: Path, name: str) -> None:
    """Call the store in *file*, with what is beside it, *name* from now on."""
    for suffix in reversed(SUFFIXES):
        with suppress(FileNotFoundError):
            _beside(file, suffix).rename(_beside(file.with_name(name), suffix))


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
