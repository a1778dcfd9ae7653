"""How many registrations a submitter has in flight is counted whenever it submits."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_IN_FLIGHT = sa.text("status IN ('queued', 'verifying')")


def upgrade() -> None:
    """Index what is in flight by its submitter."""
    op.create_index(
        "in_flight_by_submitter",
        "registrations",
        ["submitted_by", "status"],
        sqlite_where=_IN_FLIGHT,
        postgresql_where=_IN_FLIGHT,
    )
