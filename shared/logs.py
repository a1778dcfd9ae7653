"""Logs: one line per event, ids as fields; for people on a terminal, JSON elsewhere.

Whatever is logged, by us or by a library, leaves without the query and userinfo of any URL in it. On a terminal it is
shown and does nothing else: what is hidden in it stands there by its number.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.characters import visible

_URLS = re.compile(r"://[^\s\"<>]+")
_QUERIES = re.compile(r"\?[^\s\"<>]+")  # without a scheme too: libraries quote a request's path
_TOKENS = re.compile(r"prg_[0-9A-Za-z_]{8,}")


def configure_logs(*, service: str, level: int = logging.INFO) -> None:
    """Send every log record of this process from *level* on to stderr in one form, with *service* as a field.

    What we log goes there straight; what libraries log comes over the standard library, which costs more.
    """

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {"service": service, **event}

    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    for_people: list[Processor] = [without_hidden, structlog.dev.ConsoleRenderer()]
    last: list[Processor] = [
        add_service,
        structlog.processors.format_exc_info,
        without_secrets,
        *(for_people if sys.stderr.isatty() else [structlog.processors.JSONRenderer(_as_json)]),
    ]
    structlog.configure(
        processors=[*before, *last],
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),  # type: ignore[arg-type]  # it writes, and that is all
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for own_way in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(own_way).handlers = []
        logging.getLogger(own_way).propagate = own_way != "uvicorn.access"  # each request has its line already
    for chatty in (
        "alembic",
        "celery.beat",
        "celery.worker.strategy",
        "celery.app.trace",
        "kombu",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)


_json = json.JSONEncoder(default=str)


def _as_json(event: EventDict, **_options: Any) -> str:
    return _json.encode(event)  # `json.dumps` with any option makes an encoder for each line


class _Stderr:
    """Standard error, whose disk may be full or whose reader gone: that must end nothing.

    It is written to directly. What Python's own buffer could not write it would try again at the end of the process,
    and have that end with status 120.
    """

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            try:
                number = sys.stderr.fileno()
            except (OSError, ValueError, AttributeError):  # it is no file: somebody collects what is said
                sys.stderr.write(text)
            else:
                os.write(number, text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


def get_logger(name: str) -> Any:
    """Return a logger whose methods take an event and its fields; *name* is where it is."""
    return structlog.get_logger(name)


def without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return *event* with URLs cut to scheme, host and path, and tokens to their prefix.

    Where a text can be read in two ways, more is cut rather than less.
    """
    return {str(_each_text(key, scrub)): _each_text(value, scrub) for key, value in event.items()}


def without_hidden(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return *event* with nothing hidden in it.

    A traceback keeps its lines, but each of them is indented, so that none passes for another event.
    """
    shown = {str(_each_text(key, visible)): _each_text(value, visible) for key, value in event.items()}
    tracebacks = {key: event[key] for key in ("exception", "stack") if isinstance(event.get(key), str)}
    return shown | {key: _indented(lines) for key, lines in tracebacks.items()}


def _indented(lines: str) -> str:
    return "\n".join(f"    {visible(line)}" for line in lines.split("\n"))


def _each_text(value: object, change: Callable[[str], str]) -> object:
    """Return *value* with *change* made to each text in it, however deep; all but numbers is text by then."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_each_text(each, change) for each in value]
    if isinstance(value, dict):
        return {_each_text(key, change): _each_text(each, change) for key, each in value.items()}
    return value if isinstance(value, int | float | None) else change(str(value))


def scrub(text: str) -> str:
    """Return *text* with URLs cut to scheme, host and path, and tokens to their prefix."""
    if "?" not in text and "://" not in text and "prg_" not in text:
        return text  # nearly all are such
    return _TOKENS.sub("prg_***", _QUERIES.sub("", _URLS.sub(_without_userinfo, text)))


def _without_userinfo(run: re.Match[str]) -> str:
    """Return a run of characters that begins with ``://``, each URL in it without userinfo, query and fragment."""
    text = run[0].partition("#")[0].partition("?")[0]
    return "://".join(url.rpartition("@")[2] for url in text.split("://"))
