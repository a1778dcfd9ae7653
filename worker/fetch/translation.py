"""What the standard library raises -> errors of ours. The core sees none of its."""

import errno
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import ReadTimeout, RegistryError, Shortage, Truncated
from worker.fetch.parser import BROKE_OFF
from worker.fetch.tls import broken_off

_SHORT_OF = {
    errno.EMFILE: "open-files",
    errno.ENFILE: "open-files",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory",
}
"""Errors of the system that say nothing of whom we talk to, and what there is too little of."""


def is_ours(error: BaseException) -> bool:
    """Whether *error* tells of a shortage of our own machine's."""
    return _short_of(error) is not None


@contextmanager
def translated() -> Iterator[None]:
    """Turn what sockets, TLS and threads raise into errors of ours."""
    try:
        yield
    except RegistryError:
        raise
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        short_of = _short_of(error)
        if short_of is not None:
            raise Shortage("The registry has too little of what a download takes.", cause=short_of) from error
        if isinstance(error, RuntimeError):
            raise
        raise _translation(error) from error


def _short_of(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError):
        return "threads" if "start new thread" in str(error) else None
    return _SHORT_OF.get(error.errno or 0) if isinstance(error, OSError) else None


def _translation(error: Exception) -> RegistryError:
    if isinstance(error, ssl.SSLError):
        return broken_off(error)
    return (
        ReadTimeout("The artifact's host stopped sending.")
        if isinstance(error, TimeoutError)
        else Truncated(BROKE_OFF)
    )
