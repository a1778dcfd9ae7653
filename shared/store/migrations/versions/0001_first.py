"""Registrations, plugins, tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the three tables."""
    in_flight = sa.text("status IN ('queued', 'verifying')")
    op.create_table(
        "registrations",
        sa.Column("id", sa.String, primary_key=True),
        *_submission(),
        sa.Column("submitted_by", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("ring_at", sa.BigInteger, nullable=False),
        sa.Column("claimed_by", sa.String),
        sa.Column("bytes_downloaded", sa.BigInteger, nullable=False),
        sa.Column("artifact_bytes", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("plugin_id", sa.String),
        sa.Column("failure", sa.Text),
    )
    op.create_index(
        "one_in_flight",
        "registrations",
        ["fingerprint"],
        unique=True,
        sqlite_where=in_flight,
        postgresql_where=in_flight,
    )
    op.create_index("to_ring", "registrations", ["ring_at"], sqlite_where=in_flight, postgresql_where=in_flight)
    op.create_index("registrations_by_status", "registrations", ["status", "id"])
    op.create_index("registrations_by_name", "registrations", ["name_key", "id"])
    op.create_table(
        "plugins",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("registration_id", sa.String, nullable=False),
        *_submission(),
        sa.Column("artifact_bytes", sa.BigInteger, nullable=False),
        sa.Column("registered_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("name_key", "version", name="one_plugin"),
        sa.UniqueConstraint("registration_id", name="one_plugin_a_registration"),
    )
    op.create_index("plugins_by_checksum", "plugins", ["checksum", "id"])
    op.create_index("plugins_by_name", "plugins", ["name_key", "id"])
    op.create_index("plugins_by_type", "plugins", ["plugin_type", "id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("secret_sha256", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("names", sa.String, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
    )


def _submission() -> list[sa.Column[str]]:
    return [
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("name_key", sa.String, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("plugin_type", sa.String, nullable=False),
        sa.Column("artifact_url", sa.String, nullable=False),
        sa.Column("checksum", sa.String, nullable=False),
        sa.Column("config_schema", sa.Text, nullable=False),
        sa.Column("plugin_runtime", sa.String, nullable=False),
    ]
