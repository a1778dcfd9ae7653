"""The store: SQL stays in here. Private to it are the tables and the statements."""
