"""Faults: real processes, killed, stopped and cut off, and a checker of what clients were told."""
