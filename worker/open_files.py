"""What this process may open at once, and how many downloads fit into that."""

import resource
import sys

from shared.logs import get_logger

EACH = 2
"""Descriptors of one download: its socket, and one of a redirect or look-up meanwhile."""
BESIDES = 224
"""For the store, the broker, webhooks, look-ups that hang, connections that are kept or race, and what Python has."""

log = get_logger(__name__)


def fitting(downloads: int) -> int:
    """Raise the limit of open files as far as it goes; return how many of *downloads* at once fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fit = fits(hard)
    if fit >= downloads:
        return downloads
    log.warning(
        "fewer downloads than asked for: raise the limit of open files (ulimit -n, LimitNOFILE=)",
        open_files=hard,
        downloads=fit,
        asked_for=downloads,
    )
    return fit


def fits(open_files: int) -> int:
    """Return how many downloads at once fit into a limit of *open_files*."""
    return sys.maxsize if open_files == resource.RLIM_INFINITY else max(1, (open_files - BESIDES) // EACH)
