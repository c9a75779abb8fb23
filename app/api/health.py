"""For load balancers and operators: whether the process lives, and whether the installation can work."""

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse

from app import health
from app.health import INSTALLATION_HEADER
from app.security import installation_id
from app.web.resources import get_resources

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    status: str
    missing: list[str]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_model=Health, summary="The process lives")
async def healthz(request: Request) -> JSONResponse:
    secret = get_resources(request).settings.secret_key.get_secret_value()
    return JSONResponse({"status": "ok"}, headers={INSTALLATION_HEADER: installation_id(secret)})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "What is missing, each with what to do"}},
    summary="PostgreSQL, Valkey, a live worker for each queue and the default telephony provider are available",
)
async def readyz(request: Request) -> JSONResponse:
    resources = get_resources(request)
    missing = await health.missing_parts(resources.db, resources.redis)
    ready = not any(part.is_vital for part in missing)
    content = {"status": "ready" if ready else "not ready", "missing": [part.problem for part in missing]}
    return JSONResponse(content, 200 if ready else 503)
