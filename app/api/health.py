"""For load balancers and operators: whether the process lives, and whether the installation can work."""

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse

from app import health
from app.api.deps import get_resources

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    status: str
    missing: list[str]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_model=Health, summary="The process lives")
async def healthz() -> JSONResponse:
    return JSONResponse({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "What is missing, each with what to do"}},
    summary="PostgreSQL, Valkey, a live worker for each queue and every telephony provider are available",
)
async def readyz(request: Request) -> JSONResponse:
    resources = get_resources(request)
    missing = await health.missing_parts(resources.db, resources.redis)
    if missing:
        return JSONResponse({"status": "not ready", "missing": missing}, 503)
    return JSONResponse({"status": "ready", "missing": []})
