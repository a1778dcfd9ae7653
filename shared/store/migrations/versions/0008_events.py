"""The feed of events, the webhooks that are told of them, and the keys that sign what they are sent."""

import sqlalchemy as sa
from alembic import op

from shared.store.database import NOW_SQL

revision = "0008"
down_revision = "0007"
OLDEST_CODE = "0007"  # all of it is new beside what that reads and writes


def upgrade() -> None:
    """Add them. What ended before is not told; what ends from now on is, whichever release counts it."""
    op.add_column("registrations", sa.Column("told", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    untold = sa.text("counted AND NOT told")
    op.create_index(
        "registrations_to_tell", "registrations", ["updated_at"], sqlite_where=untold, postgresql_where=untold
    )
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        sa.Column("registration_id", sa.String()),
        sa.Column("document", sa.Text(), nullable=False),
        sa.UniqueConstraint("registration_id", name="one_event_a_registration"),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("kinds", sa.String(), nullable=False),
        sa.Column("names", sa.String(), nullable=False),
        sa.Column("secret", sa.String()),
        sa.Column("old_secret", sa.String()),
        sa.Column("old_secret_until", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("failing_since", sa.BigInteger()),
        sa.Column("disabled_at", sa.BigInteger()),
        sa.Column("disabled_why", sa.String()),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("webhook_id", sa.String(), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("tried_at", sa.BigInteger()),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.String()),
        sa.Column("delivered_at", sa.BigInteger()),
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("deliveries_due", "deliveries", ["webhook_id", "due_at"], sqlite_where=due, postgresql_where=due)
    op.create_index("deliveries_by_webhook", "deliveries", ["webhook_id", "id"])
    op.create_index("deliveries_by_age", "deliveries", ["created_at"])
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("use", sa.String(), nullable=False),
        sa.Column("private", sa.String(), nullable=False),
        sa.Column("public", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )
    now = NOW_SQL[op.get_bind().dialect.name]
    op.execute(f"INSERT INTO marks (name, at) VALUES ('feed', {now})")  # noqa: S608  # of our own words
