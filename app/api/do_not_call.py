"""The do-not-call list of a user, under `/api`."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app import do_not_call
from app.api.deps import LoggedIn, json_body, read_body
from app.api.envelope import Envelope, success
from app.api.schemas import Number, errors
from app.errors import NoSuchNumber, ValidationFailed
from app.web.resources import get_resources

router = APIRouter(prefix="/api/do-not-call", tags=["do-not-call"])


class DoNotCallRequest(BaseModel):
    numbers: list[Number] = Field(min_length=1, max_length=1000)


class DoNotCallAdded(BaseModel):
    added: int = Field(description="How many were not on the list before")


class DoNotCallList(BaseModel):
    total: int
    page: int
    limit: int
    numbers: list[str] = Field(examples=[["919999999999"]])


class DoNotCallRemoved(BaseModel):
    number: str = Field(examples=["919999999999"])


@router.get(
    "",
    summary="List the customers whom you do not call",
    response_model=Envelope[DoNotCallList],
    responses=errors(400, 401, 422),
)
async def list_numbers(
    request: Request,
    claims: LoggedIn,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page: Annotated[int, Query(ge=1, le=10**9)] = 1,
) -> Response:
    """The list of your account, in the order in which the numbers were added. The operator's list applies besides."""
    async with get_resources(request).db.transaction() as session:
        offset = (page - 1) * limit
        numbers = await do_not_call.list_numbers(session, claims.user_id, limit=limit, offset=offset)
        total = await do_not_call.count(session, claims.user_id)
    return success("Do-not-call list fetched", DoNotCallList(total=total, page=page, limit=limit, numbers=numbers))


@router.post(
    "",
    summary="Add customers whom you do not call",
    response_model=Envelope[DoNotCallAdded],
    responses=errors(400, 401, 413, 422),
    openapi_extra=json_body(DoNotCallRequest),
)
async def add(request: Request, claims: LoggedIn) -> Response:
    """Up to 1,000 numbers. A call to one of them is refused. One that is queued ends without being dialed."""
    resources = get_resources(request)
    body = await read_body(request, DoNotCallRequest)
    async with resources.db.transaction() as session:
        added = await do_not_call.add(session, claims.user_id, body.numbers)
    return success("Do-not-call list updated", DoNotCallAdded(added=added))


@router.delete(
    "/{number}",
    summary="Remove a customer from the list",
    response_model=Envelope[DoNotCallRemoved],
    responses=errors(400, 401, 404, 422),
)
async def remove(request: Request, number: str, claims: LoggedIn) -> Response:
    """The number, however it is written."""
    resources = get_resources(request)
    try:
        read = resources.numbers.read(number)
    except ValueError as error:
        raise ValidationFailed(f"number: {error}") from None
    async with resources.db.transaction() as session:
        if not await do_not_call.remove(session, claims.user_id, read):
            raise NoSuchNumber("This number is not on your do-not-call list")
    return success("Do-not-call list updated", DoNotCallRemoved(number=read.digits))
