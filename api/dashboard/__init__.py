"""The pages, for browsers."""
