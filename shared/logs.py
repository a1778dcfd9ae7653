"""Logs: one line per event, ids as fields; for people on a terminal, JSON elsewhere.

Whatever is logged, by us or by a library, leaves without the query and userinfo of any URL in it.
"""

import logging
import re
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_URLS = re.compile(r"://[^\s\"<>]+")
_QUERIES = re.compile(r"\?[^\s\"<>]+")  # without a scheme too: libraries quote a request's path
_TOKENS = re.compile(r"prg_[0-9A-Za-z_]{8,}")


def configure_logs(*, service: str) -> None:
    """Send every log record of this process to stderr in one form, with *service* as a field."""
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    person = sys.stderr.isatty()
    last: list[Processor] = [structlog.dev.ConsoleRenderer()] if person else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {"service": service, **event}

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                add_service,
                structlog.processors.format_exc_info,
                without_secrets,
                *last,
            ],
        )
    )
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for own_way in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(own_way).handlers = []
        logging.getLogger(own_way).propagate = True
    for chatty in (
        "alembic",
        "celery.beat",
        "celery.worker.strategy",
        "celery.app.trace",
        "kombu",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def get_logger(name: str) -> Any:
    """Return a logger whose methods take an event and its fields."""
    return structlog.stdlib.get_logger(name)


def without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return *event* with URLs cut to scheme, host and path, and tokens to their prefix.

    Where a text can be read in two ways, more is cut rather than less.
    """
    return {str(_scrub(key)): _scrub(value) for key, value in event.items()}


def _scrub(value: object) -> object:
    if isinstance(value, str):
        return _TOKENS.sub("prg_***", _QUERIES.sub("", _URLS.sub(_without_userinfo, value)))
    if isinstance(value, list | tuple | set | frozenset):
        return [_scrub(each) for each in value]
    if isinstance(value, dict):
        return {_scrub(key): _scrub(each) for key, each in value.items()}
    return value if isinstance(value, int | float | None) else _scrub(str(value))


def _without_userinfo(run: re.Match[str]) -> str:
    """Return a run of characters that begins with ``://``, each URL in it without userinfo, query and fragment."""
    text = run[0].partition("#")[0].partition("?")[0]
    return "://".join(url.rpartition("@")[2] for url in text.split("://"))
