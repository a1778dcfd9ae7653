"""A store says which code it lets live, so that a release with a schema change is a rolling one."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
OLDEST_CODE = "0006"  # before, code looked for its own version and served no other


def upgrade() -> None:
    """Keep the oldest code that may serve beside the version; `shared/store/schema.py` writes it."""
    op.add_column("alembic_version", sa.Column("oldest_code", sa.String(32)))
