"""How fast the registry does each of its jobs, beside what a user would put in its place: ``python -m bench``."""
