"""Login, which is the same in both dialects."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app import accounts
from app.api.deps import json_body, read_body
from app.api.envelope import Envelope, ErrorEnvelope, success
from app.api.schemas import errors
from app.web.resources import get_resources


class LoginRequest(BaseModel):
    email: str = Field(examples=["user@example.com"])
    password: str = Field(examples=["your_password"])


class LoginData(BaseModel):
    access_token: str = Field(examples=["<jwt_access_token>"])
    refresh_token: str = Field(examples=["<jwt_refresh_token>"])
    token_type: Literal["bearer"] = "bearer"  # noqa: S105


def add_login_routes(router: APIRouter, *, invalid: int) -> None:
    """Add both routes to the router of a dialect that answers an invalid request with this status."""

    @router.post(
        "/login",
        summary="Log in",
        response_model=Envelope[LoginData],
        responses=errors(400, 413, invalid, 429),
        openapi_extra=json_body(LoginRequest),
    )
    async def login(request: Request) -> Response:
        """Log in a verified, active user. Other logins of the user stay."""
        resources = get_resources(request)
        body = await read_body(request, LoginRequest)
        pair = await accounts.log_in(
            resources.db,
            resources.tokens,
            resources.throttle,
            email=body.email,
            password=body.password,
            address=request.client.host if request.client else None,
            session_seconds=resources.settings.refresh_token_seconds,
        )
        return success("Login successful", LoginData(access_token=pair.access_token, refresh_token=pair.refresh_token))

    @router.post(
        "/refresh_token",
        summary="Get a new access token",
        response_model=Envelope[LoginData],
        responses={
            **errors(400, invalid),
            401: {"model": ErrorEnvelope, "description": "Expired or revoked refresh token"},
        },
    )
    async def refresh_token(request: Request, refresh_token: Annotated[str, Query()]) -> Response:
        """A new access token for the same login. The refresh token stays."""
        resources = get_resources(request)
        pair = await accounts.refresh(resources.db, resources.tokens, refresh_token)
        data = LoginData(access_token=pair.access_token, refresh_token=pair.refresh_token)
        return success("Token refreshed successfully", data)
