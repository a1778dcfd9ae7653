"""What somebody on call is shown, and may do: attempts, hosts to pause, alerts to acknowledge, what tries again."""

import sqlalchemy as sa
from alembic import op

from shared.registration import host_of

revision = "0007"
down_revision = "0006"
OLDEST_CODE = "0006"  # all of it is new beside what that reads and writes

_AT_ONCE = 1000


def upgrade() -> None:
    """Add them; of what has not become a plugin the host is noted afterwards."""
    op.add_column("registrations", sa.Column("host", sa.String()))
    op.add_column("registrations", sa.Column("hops", sa.Text()))
    op.create_index(
        "registrations_by_host",
        "registrations",
        ["host", "id"],
        sqlite_where=sa.text("host IS NOT NULL"),
        postgresql_where=sa.text("host IS NOT NULL"),
    )
    op.create_index(
        "registrations_by_retry",
        "registrations",
        ["retry_of", "id"],
        sqlite_where=sa.text("retry_of IS NOT NULL"),
        postgresql_where=sa.text("retry_of IS NOT NULL"),
    )
    op.add_column("actions", sa.Column("subject", sa.String()))
    op.add_column("actions", sa.Column("note", sa.String()))
    op.create_table(
        "attempts",
        sa.Column(
            "registration_id", sa.String(), sa.ForeignKey("registrations.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("epoch", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.String()),
        sa.Column("bytes_downloaded", sa.BigInteger(), nullable=False),
        sa.Column("hops", sa.Text()),
        sa.Column("failure", sa.Text()),
    )
    op.create_table(
        "paused_hosts",
        sa.Column("host", sa.String(), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
    )
    op.create_table(
        "acknowledgements",
        sa.Column("alert", sa.String(), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
    )
    _note_hosts(op.get_bind())


def _note_hosts(connection: sa.Connection) -> None:
    registrations = sa.table("registrations", *(sa.column(name) for name in ("id", "host", "artifact_url", "status")))
    r = registrations.c
    unknown = sa.select(r.id, r.artifact_url).where(r.status != "registered").order_by(r.id).limit(_AT_ONCE)
    setting = sa.update(registrations).where(r.id == sa.bindparam("of_id")).values(host=sa.bindparam("its_host"))
    rows = connection.execute(unknown).all()
    while rows:
        connection.execute(setting, [{"of_id": row.id, "its_host": host_of(row.artifact_url)} for row in rows])
        rows = connection.execute(unknown.where(r.id > rows[-1].id)).all()
