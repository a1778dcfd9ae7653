"""Composition root of the api: ``python -m api.main``, or ``uvicorn --factory api.main:create_app`` behind a proxy.

The first speaks HTTP itself with a deadline for every wait, and caps on connections (`api/http/protocol.py`).
The second leaves that to whatever stands in front.
"""

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from importlib.metadata import version
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from api.dashboard.pages import ROUTERS, problem_page
from api.http.access_log import AccessLog
from api.http.body import invalid_query
from api.http.counts import RequestCounts
from api.http.limits import Throttle
from api.http.methods import Head, methods_at
from api.http.openapi import openapi_document
from api.http.places import Caps, Held
from api.http.plain import PlainRequests
from api.http.prefix import Prefix, route_of
from api.http.problems import Problem, answer_to, problem_of, problem_response
from api.http.protocol import Gate, over_our_wire
from api.http.proxies import Proxies
from api.http.shortcut import Shortcut
from api.live.bell import Bell
from api.live.feed import Feed
from api.live.following import Following
from api.live.in_time import ASKED_WITHIN_S, READY_WITHIN_S
from api.live.monitor import Monitor
from api.live.outcomes import Outcomes
from api.live.shared_limit import SharedLimit
from api.live.submissions import Submissions
from api.live.threads import Threads
from api.live.token_lookup import TokenLookup
from api.routes import (
    alerts,
    events,
    health,
    metrics,
    operations,
    plugins,
    problem_pages,
    register,
    registrations,
    snapshot,
    tokens,
    upstreams,
    webhooks,
)
from api.services import Services
from shared.errors import RegistryError, StoreUnavailable
from shared.logs import configure_logs
from shared.queues import celery_app, look_at_broker, ring
from shared.settings import BadSettings, Settings, read_settings
from shared.signatures import new_key
from shared.store.acknowledgements import Acknowledgements
from shared.store.actions import Actions
from shared.store.catalogue import Catalogue
from shared.store.changes import changes_of
from shared.store.counters import Counters
from shared.store.database import SchemaMismatch, open_database
from shared.store.events import Events
from shared.store.keys import SigningKeys
from shared.store.registrations import Store
from shared.store.schema import check_schema
from shared.store.sessions import Sessions
from shared.store.snapshot import StoreSnapshots
from shared.store.tokens import Tokens
from shared.store.upstreams import Upstreams
from shared.store.webhooks import Webhooks
from shared.tracing import TracingNotInstalled, start_tracing

STORE_THREADS = 3
STORE_CONNECTIONS = 12
"""One for each thread that asks: three, one for strangers, and of monitor, submissions, tokens and so on."""
ROOMS = (
    *(register, plugins, registrations, snapshot, operations, upstreams, alerts, tokens, events, webhooks),
    *(metrics, health, problem_pages),
)
"""What the API consists of."""
LEAVING_S = 3.0
"""How long a process that was told to stop waits for the store; who is cut off then is still told so."""


def create_app(settings: Settings | None = None) -> ASGIApp:
    """Return the app for *settings*, by default those of the environment.

    Exits with one sentence where a setting is bad or the store is not one to work with.
    """
    level, told = _as_uvicorn_was_told()
    configure_logs(service="api", level=level)
    try:
        settings = settings or read_settings()
        if settings.traces:
            start_tracing("api")
        celery = celery_app(settings)
        database = open_database(settings.database_url, connections=STORE_CONNECTIONS)
        check_schema(database)
        database.tell_outages()
    except (BadSettings, SchemaMismatch, StoreUnavailable, TracingNotInstalled) as error:
        sys.exit(str(error))

    bell = Bell(lambda ids: ring(celery, ids))
    store = Store(
        database,
        ring_again_after_s=5 * settings.sweep_interval_s,
        max_in_flight=settings.in_flight_per_token,
    )
    known_tokens = Tokens(database)
    sessions, counts = Sessions(database, known_tokens), RequestCounts()
    acknowledgements = Acknowledgements(database)
    ask = Threads(STORE_THREADS, name="store", within_s=ASKED_WITHIN_S)
    changes = changes_of(database)
    proxies = Proxies(settings.trusted_proxies)
    together = SharedLimit(celery, max(1, settings.requests_a_minute))
    services = Services(
        settings=settings,
        store=store,
        token_lookup=TokenLookup(known_tokens),
        throttle=Throttle(
            bad_tokens_a_minute=settings.bad_tokens_a_minute,
            requests_a_minute=settings.requests_a_minute,
            elsewhere=None if settings.broker.kind == "amqp" else together.tell,
        ),
        proxies=proxies,
        caps=Caps(settings, proxies),
        submissions=Submissions(store, bell.ring),
        outcomes=Outcomes(store, changes.version),
        following=Following(store),
        feed=Feed(Events(database), Counters(database), changes.version),
        events=Events(database),
        monitor=Monitor(
            StoreSnapshots(database),
            Counters(database),
            counts,
            lambda: look_at_broker(celery),
            sessions=sessions.good,
            acknowledged=acknowledgements.good,
        ),
        ring=bell.ring,
        sessions=sessions,
        tokens=known_tokens,
        actions=Actions(database),
        upstreams=Upstreams(database),
        catalogue=Catalogue(database),
        acknowledgements=acknowledgements,
        webhooks=Webhooks(database),
        keys=SigningKeys(database, new_key),
        ask=ask,
        ask_for_strangers=Threads(1, name="strangers", within_s=ASKED_WITHIN_S),
        ask_health=Threads(1, name="health", within_s=READY_WITHIN_S),
        parse=Threads(1, name="parsing"),
        check_store=lambda: check_schema(database),
    )

    changes.when_told(services.wake)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        gc.collect()
        gc.freeze()  # what is loaded by now stays: to look at it again and again held up one answer in a hundred
        bell.start()

        def leave() -> None:
            services.leave()
            database.give_up(after_s=LEAVING_S)

        _when_told_to_stop(leave)
        async with asyncio.TaskGroup() as tasks:
            live = (changes, services.outcomes, services.following, services.feed, services.monitor)
            running = [tasks.create_task(each.run()) for each in live]
            yield
            changes.close()
            for task in running:
                task.cancel()
        with suppress(StoreUnavailable):
            await ask(services.monitor.count_answers)
        services.close()
        together.close()
        database.close()

    app = FastAPIOffline(
        title="Plugin registry",
        version=version("plugin-registry"),
        redoc_url=None,
        root_path_in_servers=False,  # the document says it
        redirect_slashes=False,  # such a redirect would lead wherever the client's Host says
        lifespan=lifespan,
    )
    app.state.services = services
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]  # as FastAPI documents it
    _add_routes(app)
    short = Shortcut(app, "POST", "/api/v1/plugins", register.register_plugin, answer_to)
    # The log outside everything else, so that a surprise is logged as the 500 it is.
    return Prefix(AccessLog(PlainRequests(Head(Held(short))), counts, told=told), settings.root_path)


@cache
def _as_uvicorn_was_told() -> tuple[int, bool]:
    """Return the level of the log, and whether requests are to be in it, as uvicorn was told if it was told.

    It is asked once, before our own way to log takes the place of uvicorn's.
    """
    access = logging.getLogger("uvicorn.access")
    level = logging.getLogger("uvicorn.error").level or logging.INFO
    return level, bool(access.handlers or access.propagate)


def where_to_listen(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return where *arguments*, by default those of the command line, would have the api listen."""
    parser = argparse.ArgumentParser(prog="python -m api.main", description="The api of the plugin registry.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", default=8080, type=int, help="port to listen on (8080)")
    parser.add_argument("--fd", type=int, help="a listening socket that was inherited, in place of these")
    return parser.parse_args(arguments)


def serve() -> None:
    """Serve the api until told to stop."""
    given = where_to_listen()
    try:
        settings = read_settings()
    except BadSettings as error:
        sys.exit(str(error))
    config = over_our_wire(create_app(settings), Gate(settings), host=given.host, port=given.port)
    # Such a socket keeps its own family: uvicorn's --fd takes it for a Unix one, which holds small answers back.
    uvicorn.Server(config).run([socket.socket(fileno=given.fd)] if given.fd is not None else None)


def _when_told_to_stop(leave: Callable[[], None]) -> None:
    """Have *leave* answer waiting requests as soon as SIGTERM or SIGINT comes, before uvicorn's own handler."""
    if threading.current_thread() is not threading.main_thread():
        return  # in a test's thread: signals are not ours there
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def stop(number: int, frame: FrameType | None, before: Any = before) -> None:
            loop.call_soon_threadsafe(leave)
            if callable(before):
                before(number, frame)

        signal.signal(number, stop)


def _add_routes(app: FastAPI) -> None:
    routers = (*(each.router for each in ROOMS), *ROUTERS)
    for router in routers:
        app.include_router(router)
    _add_error_handlers(app, routers)


def _add_error_handlers(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return problem_page(request, error) or answer_to(error)

    @app.exception_handler(RegistryError)
    async def failure(request: Request, error: RegistryError) -> Response:
        return problem_page(request, problem_of(error.failure())) or answer_to(error)

    @app.exception_handler(RequestValidationError)
    async def bad_query(_request: Request, error: RequestValidationError) -> Response:
        return problem_response(invalid_query(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "malformed-request")
        headers = dict(error.headers or {})
        if code == "method-not-allowed" and (methods := methods_at(route_of(request.scope), routers)):
            headers["Allow"] = ", ".join(methods)
        return problem_response(Problem(code, f"{error.detail}.", headers=headers))

    @app.exception_handler(Exception)
    async def surprise(_request: Request, error: Exception) -> Response:
        return answer_to(error)


if __name__ == "__main__":
    serve()
