"""What operators see and do."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_FINAL = "status NOT IN ('queued', 'verifying')"


def upgrade() -> None:
    """Widen registrations and create the tables beside them."""
    for column in (
        sa.Column("retry_of", sa.String),
        sa.Column("trace", sa.String),
        sa.Column("claimed_at", sa.BigInteger),
        sa.Column("progressed_at", sa.BigInteger),
        sa.Column("leases_lost", sa.Integer, nullable=False, server_default="0"),
        sa.Column("cause", sa.String),
        sa.Column("counted", sa.Boolean, nullable=False, server_default=sa.text("false")),
    ):
        op.add_column("registrations", column)
    _create_tables()
    # What settled before anybody counted is counted as kept, and as nothing else: its times are not known.
    of_cause = (
        "json_extract(failure, '$.cause')"
        if op.get_bind().dialect.name == "sqlite"
        else "CAST(failure AS json) ->> 'cause'"
    )
    op.execute(f"UPDATE registrations SET cause = {of_cause} WHERE failure IS NOT NULL")  # noqa: S608
    op.execute(f"UPDATE registrations SET counted = true WHERE {_FINAL}")  # noqa: S608
    op.execute(
        "INSERT INTO tallies (name, labels, value) "  # noqa: S608
        f"SELECT 'kept', '[\"' || status || '\"]', count(*) FROM registrations WHERE {_FINAL} GROUP BY status"
    )
    _create_index("registrations_by_cause", ["cause", "id"], "cause IS NOT NULL")
    _create_index("registrations_to_count", ["id"], f"{_FINAL} AND NOT counted")


def _create_tables() -> None:
    op.create_table(
        "tallies",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("labels", sa.String, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "periods",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("begun_at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("label", sa.String, primary_key=True),
        sa.Column("settled", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("verifying_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("threads", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "marks",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "actions",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("token_id", sa.String, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("registration_id", sa.String, nullable=False),
        sa.Column("became", sa.String),
    )
    op.create_index("actions_by_registration", "actions", ["registration_id", "id"])
    op.create_table(
        "sessions",
        sa.Column("secret_sha256", sa.String, primary_key=True),
        sa.Column("token_id", sa.String, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )


def _create_index(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "registrations", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
