"""Workers that went without a word are counted, once."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Mark those that were counted."""
    op.add_column("workers", sa.Column("lost", sa.Boolean, nullable=False, server_default=sa.text("false")))
