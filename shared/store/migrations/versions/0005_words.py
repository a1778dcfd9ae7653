"""Counters and workers are called what everybody calls them."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Rename a table, a column and a counter; nothing is copied, on either store."""
    op.rename_table("tallies", "counters")
    op.execute("ALTER TABLE workers RENAME COLUMN threads TO max_downloads")
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER INDEX tallies_pkey RENAME TO counters_pkey")
    op.execute("UPDATE counters SET name = 'http_requests' WHERE name = 'http_answers'")
