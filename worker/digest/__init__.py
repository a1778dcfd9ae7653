"""Hashing what arrives, and saying why a digest differs."""
