"""What somebody on call is shown, and may do: attempts, hosts to pause, alerts to acknowledge, what tries again."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
OLDEST_CODE = "0006"  # all of it is new beside what that reads and writes


def upgrade() -> None:
    """Add them. No row is written: the sweep notes hosts, a few at a time (`Store.note_hosts`)."""
    op.add_column("registrations", sa.Column("host", sa.String()))
    op.add_column("registrations", sa.Column("hops", sa.Text()))
    op.create_index(
        "registrations_by_host",
        "registrations",
        ["host", "id"],
        sqlite_where=sa.text("host IS NOT NULL"),
        postgresql_where=sa.text("host IS NOT NULL"),
    )
    without_host = sa.text("host IS NULL AND status <> 'registered'")
    op.create_index(
        "registrations_without_host",
        "registrations",
        ["id"],
        sqlite_where=without_host,
        postgresql_where=without_host,
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
