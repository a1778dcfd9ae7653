"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
OLDEST_CODE = ${repr(up_revision)}  # the oldest SCHEMA_VERSION whose code works on what this makes: see decision 0028


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
