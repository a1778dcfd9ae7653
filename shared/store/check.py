"""Whether a store holds together: what a restore, a disk or a hand can have broken, found by looking at all of it.

The invariants (docs/invariants.md) that a state alone can show: 2, 3 and 5; that of identical submissions one is in
flight; and that the indices that referee them are there. Each question is one statement, so a store may be looked at
while it is used. SQLite compares its tables with its indices by itself (``PRAGMA integrity_check``). On PostgreSQL
tables are read without their indices, which may be what is broken; `pg_amcheck` looks at what is in those.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, UniqueConstraint, inspect
from sqlalchemy import text as sql
from sqlalchemy.exc import DatabaseError
from sqlmodel import SQLModel

from shared.store.database import Database
from shared.store.schema import known_version
from shared.store.tables import IN_FLIGHT_SQL, SCHEMA_VERSION

_FINAL = "status IN ('registered', 'rejected', 'failed', 'canceled')"
_UNREGISTERED = "status IN ('rejected', 'failed', 'canceled')"
_QUESTIONS = {
    "plugins share their name and version with another (invariant 2)": (
        "SELECT p.id FROM plugins AS p JOIN (SELECT name_key, version FROM plugins GROUP BY name_key, version "
        "HAVING count(*) > 1) AS twice ON p.name_key = twice.name_key AND p.version = twice.version"
    ),
    "plugins share their registration with another (invariant 5)": (
        "SELECT p.id FROM plugins AS p JOIN (SELECT registration_id FROM plugins GROUP BY registration_id "
        "HAVING count(*) > 1) AS twice ON p.registration_id = twice.registration_id"
    ),
    "registrations are registered and have no plugin (invariant 5)": (
        "SELECT r.id FROM registrations AS r LEFT JOIN plugins AS p ON p.registration_id = r.id "
        "WHERE r.status = 'registered' AND (p.id IS NULL OR p.id <> coalesce(r.plugin_id, ''))"
    ),
    "plugins are of a registration that is not registered (invariant 5)": (
        "SELECT p.id FROM plugins AS p JOIN registrations AS r ON r.id = p.registration_id "
        "WHERE r.status <> 'registered'"
    ),
    "plugins are not what their registration submitted (invariant 5)": (
        "SELECT p.id FROM plugins AS p JOIN registrations AS r ON r.id = p.registration_id "
        "WHERE p.fingerprint <> r.fingerprint OR p.name <> r.name OR p.version <> r.version "
        "OR p.checksum <> r.checksum"
    ),
    "registrations have a status that there is not (invariant 3)": (
        f"SELECT id FROM registrations WHERE NOT ({IN_FLIGHT_SQL}) AND NOT ({_FINAL})"  # noqa: S608
    ),
    "registrations ended without a reason (invariant 3)": (
        f"SELECT id FROM registrations WHERE {_UNREGISTERED} AND failure IS NULL"  # noqa: S608
    ),
    "registrations are in flight and were counted as final (invariant 3)": (
        f"SELECT id FROM registrations WHERE {IN_FLIGHT_SQL} AND counted"  # noqa: S608
    ),
    "registrations in flight are identical to another": (
        "SELECT r.id FROM registrations AS r JOIN (SELECT fingerprint FROM registrations "  # noqa: S608
        f"WHERE {IN_FLIGHT_SQL} GROUP BY fingerprint HAVING count(*) > 1) AS twice "
        f"ON r.fingerprint = twice.fingerprint WHERE {IN_FLIGHT_SQL}"
    ),
}
MAX_TOLD = 20
"""Of what SQLite finds broken in its file, so many are told."""


def faults_of(database: Database) -> Iterator[str]:
    """Yield what is wrong with the store, a sentence each; nothing where it holds together.

    Raises:
        SchemaMismatch: it is no store, or of a newer release that does not let this code live.
        StoreUnavailable: the database did not answer.
    """
    version = known_version(database)
    # For reading alone, but on PostgreSQL what is set for a transaction needs one.
    with database.read() if database.dialect == "sqlite" else database.write(patient=True) as connection:
        try:
            if database.dialect == "sqlite":
                yield from _broken_file(connection)
            if version == SCHEMA_VERSION:  # of an older or a newer store others know them
                yield from _missing_indices(connection)
            yield from _answers(connection)
        except DatabaseError as error:
            if type(error) is not DatabaseError:  # that is SQLite's, of a file that it cannot make sense of
                raise
            yield f"The file is broken: {error.orig}."


def _broken_file(connection: Connection) -> Iterator[str]:
    found = connection.exec_driver_sql(f"PRAGMA integrity_check({MAX_TOLD})").scalars()
    yield from (f"The file is broken: {each}." for each in found if each != "ok")


def _missing_indices(connection: Connection) -> Iterator[str]:
    looked_at = inspect(connection)
    there = set(looked_at.get_table_names())
    for table in SQLModel.metadata.sorted_tables:
        if table.name not in there:
            yield f"There is no table {table.name}."
            continue
        found = {each["name"] for each in looked_at.get_indexes(table.name)}
        found |= {each["name"] for each in looked_at.get_unique_constraints(table.name)}
        unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        wanted = {str(each.name) for each in table.indexes} | {str(each.name) for each in unique}
        primary = looked_at.get_pk_constraint(table.name)["constrained_columns"]
        if not primary:
            yield f"The table {table.name} has no primary key."
        yield from (f"The table {table.name} has no index {name}." for name in sorted(wanted - found))
    if connection.dialect.name == "postgresql":
        invalid = connection.execute(
            sql(
                "SELECT i.relname FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid "
                "JOIN pg_class AS t ON t.oid = indrelid WHERE t.relnamespace = current_schema()::regnamespace "
                "AND NOT (indisvalid AND indisready) ORDER BY 1"
            )
        ).scalars()
        yield from (f"The index {name} is not valid: REINDEX it." for name in invalid)


def _answers(connection: Connection) -> Iterator[str]:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "SET LOCAL enable_indexscan = off; "
            "SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off"
        )
    for what, question in _QUESTIONS.items():
        number, first = connection.execute(sql(f"SELECT count(*), min(id) FROM ({question}) AS found")).one()  # noqa: S608
        if number:
            yield f"{number} {what}; one of them is {first}."
