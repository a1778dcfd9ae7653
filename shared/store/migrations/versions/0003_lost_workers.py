"""Workers that went without a word are counted, once."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Count the sweeps that did not hear of a worker, and mark those that were counted."""
    op.add_column("workers", sa.Column("missed", sa.Integer, nullable=False, server_default="0"))
    op.add_column("workers", sa.Column("lost", sa.Boolean, nullable=False, server_default=sa.text("false")))
