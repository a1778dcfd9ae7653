"""Alembic's entry: runs the migrations on the connection that `shared/store/schema.py` hands over."""

from alembic import context

# One transaction around all of them: the caller's. A migration that fails leaves the store as it was.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
