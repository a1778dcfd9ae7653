"""Reading what is registered."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api.http.auth import allowed
from api.http.paging import Checksum, Name, PageQuery, Version, a_page, known_id, refuse_repeats
from api.http.problems import Problem, documented
from api.routes.views import as_json
from api.services import Services, services_of
from shared.registration import (
    Plugin,
    PluginType,
)
from shared.store.tokens import Token

router = APIRouter(tags=["plugins"])


class PluginPage(BaseModel):
    """A page of plugins, newest first."""

    items: list[Plugin]
    nextCursor: str | None  # noqa: N815  # the wire's name


class PluginQuery(PageQuery):
    """Filters of the list."""

    name: Name | None = None
    version: Version | None = None
    plugin_type: PluginType | None = None
    checksum: Checksum | None = None


@router.get(
    "/api/v1/plugins/{plugin_id}",
    operation_id="GetPlugin",
    summary="One plugin",
    response_model=Plugin,
    responses=documented(
        "malformed-request", "unauthorized", "forbidden", "too-many-requests", "not-found", "store-unavailable"
    ),
)
async def get_plugin(
    plugin_id: str,
    services: Annotated[Services, Depends(services_of)],
    _token: Annotated[Token, Depends(allowed("read", "register", "operate"))],
) -> Response:
    """A plugin never changes once it is registered."""
    plugin = await services.ask(services.store.plugin, known_id(plugin_id))
    if plugin is None:
        raise Problem("not-found", "There is no plugin of this id.")
    return as_json(plugin)


@router.get(
    "/api/v1/plugins",
    operation_id="ListPlugins",
    summary="Plugins, newest first",
    response_model=PluginPage,
    responses=documented(
        "malformed-request",
        "unauthorized",
        "forbidden",
        "too-many-requests",
        "invalid-fields",
        "store-unavailable",
        "internal-error",
    ),
)
async def list_plugins(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    _token: Annotated[Token, Depends(allowed("read", "operate"))],
    query: Annotated[PluginQuery, Query()],
) -> Response:
    """Filter by name (as uniqueness sees it), version, type and checksum."""
    refuse_repeats(request)
    plugins = partial(services.store.plugins, filters=query.filters)
    shown, cursor = await a_page(services.ask, plugins, query, "plugin")
    return as_json(PluginPage(items=shown, nextCursor=cursor))
