"""The operations page, for browsers."""
