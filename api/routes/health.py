"""Whether this process lives, and whether it can take submissions: for load balancers and whatever restarts it."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from api.http.problems import Problem, documented
from api.services import Services, services_of
from shared.store.database import SchemaMismatch

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    operation_id="GetHealth",
    summary="Whether the process lives",
    responses=documented("head-too-large", "too-many-requests"),
)
async def healthz() -> dict[str, str]:
    """Ask nobody else."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    operation_id="GetReadiness",
    summary="Whether submissions can be taken",
    responses=documented("head-too-large", "too-many-requests", "store-unavailable"),
)
async def readyz(services: Annotated[Services, Depends(services_of)]) -> Response:
    """Ask the store whether it is there, and of this version."""
    try:
        await services.ask_health(services.check_store)
    except SchemaMismatch as error:
        raise Problem("store-unavailable", str(error), fault="registry", retryable=True) from error
    return JSONResponse({"status": "ready"})
