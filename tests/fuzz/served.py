"""The application, as a server calls it, over a store of its own; nobody verifies, and no bell is heard."""

import asyncio
import json
import logging
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp

from api.main import create_app
from shared.settings import Settings
from shared.store.database import open_database
from shared.store.schema import migrate
from shared.store.tokens import Tokens
from tests.fuzz.examples import TOKEN

PATIENCE_S = 2.0
"""So long a client waits for an answer, and then leaves."""


class Surprise(logging.Handler):
    """The last error that was logged: what nobody foresaw is, and is answered 500."""

    story = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.story = str(json.loads(self.format(record)).get("exception", record.getMessage()))


class Served:
    """An application that has been started."""

    def __init__(self, app: ASGIApp, bearer: str) -> None:
        self._app, self._bearer = app, bearer.encode()
        self.surprise = Surprise(logging.ERROR)
        self.surprise.setFormatter(logging.getLogger().handlers[0].formatter)
        logging.getLogger().addHandler(self.surprise)
        self._loop = asyncio.new_event_loop()
        self._life = self._loop.create_task(self._live())

    async def _live(self) -> None:
        messages = asyncio.Queue[dict[str, Any]]()
        messages.put_nowait({"type": "lifespan.startup"})
        await self._app({"type": "lifespan"}, messages.get, _ignore)

    def status(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> int:
        """Return the status that a request is answered with; 499 if that takes longer than a client waits."""
        path, _, query_string = target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method.decode("latin-1").upper(),
            "scheme": "http",
            "path": unquote_to_bytes(path).decode("utf-8", "replace") or "/",
            "raw_path": path,
            "root_path": "",
            "query_string": query_string,
            "headers": [(name, value.replace(TOKEN, self._bearer)) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        return self._loop.run_until_complete(self._answer(scope, body))

    async def _answer(self, scope: dict[str, Any], body: bytes) -> int:
        messages, status = asyncio.Queue[dict[str, Any]](), 0
        messages.put_nowait({"type": "http.request", "body": body, "more_body": False})

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                assert not any({*b"\r\n"} & {*value} for _, value in message["headers"])

        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._app(scope, messages.get, send)
        except TimeoutError:
            return 499
        return status


async def _ignore(_message: Any) -> None:
    pass


@cache
def served() -> Served:
    """Return the application of this process."""
    folder = Path(tempfile.mkdtemp())
    settings = Settings(
        state_dir=folder,
        broker_url=f"redis+socket://{folder}/nobody",
        sync_wait_s=0,
        bad_tokens_a_minute=0,
        requests_a_minute=0,
    )
    database = open_database(settings.database_url)
    migrate(database)
    bearer = Tokens(database).create("fuzz", ["register", "read", "operate"]).text
    database.close()
    return Served(create_app(settings), bearer)
