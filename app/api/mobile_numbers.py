"""The newest dialect, `/api`: rented numbers, their channels, and their inbound callbacks."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from app import dids
from app.api import schemas
from app.api.deps import LoggedIn, json_body, read_body
from app.api.envelope import Envelope, success
from app.api.schemas import CallbackUrl, StorableText, Switch, UnlessBlank, errors
from app.dids import ChannelAllocation, Channels, DidView
from app.errors import NoSuchNumber
from app.models import Did
from app.numbers import PhoneNumber
from app.security import Claims
from app.web.resources import get_resources

router = APIRouter(prefix="/api", tags=["current"])

PhoneNumberId = Annotated[str, Field(pattern="^PN_[0-9]{10}$", examples=["PN_0123456789"])]


class MobileNumber(BaseModel):
    phone_number_id: PhoneNumberId
    mobile_number: str = Field(examples=["911140000001"])
    did_status: Literal["active", "expired"]
    max_channels: int
    allocated_channels: int
    active_channels: int


class AllocatedNumber(MobileNumber):
    available_channels: int


class Pool(BaseModel):
    """A user's channels."""

    user_id: str = Field(examples=["USR_0A1B2C3D"])
    pool_total_channels: int
    pool_active_channels: int
    pool_available_channels: int


class MobileNumbers(BaseModel):
    user_id: str = Field(examples=["USR_0A1B2C3D"])
    number_type: Literal["c2c"] = "c2c"
    count: int
    pool_total_channels: int
    pool_active_channels: int
    numbers: list[MobileNumber]


class Allocation(Pool):
    count: int
    numbers: list[AllocatedNumber]


class AllocationItem(BaseModel):
    did: schemas.Did | None = None
    phone_number_id: str | None = Field(None, examples=["PN_0123456789"])
    allocated_channels: int = Field(ge=0, le=10**6)

    @model_validator(mode="after")
    def _names_one(self) -> "AllocationItem":
        if (self.did is None) == (self.phone_number_id is None):
            raise ValueError("name the number by did or by phone_number_id, not by both or neither")
        return self


class AllocationRequest(BaseModel):
    """The list alone is accepted, too."""

    allocations: list[AllocationItem] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _wrapped(cls, sent: Any) -> Any:
        return {"allocations": sent} if isinstance(sent, list) else sent


class Utilization(BaseModel):
    phone_number_id: PhoneNumberId
    did: None = None
    allocated_channels: int
    active_channels: int
    available_channels: int


class UtilizationData(Pool):
    numbers: list[Utilization]


class InboundRequest(BaseModel):
    phone_number_id: StorableText | None = Field(None, examples=["PN_0123456789"])
    phone_number: schemas.Did | None = None
    callback_url: CallbackUrl | None = None
    transcript: Switch = False

    @model_validator(mode="after")
    def _names_one(self) -> "InboundRequest":
        if (self.phone_number is None) == (self.phone_number_id is None):
            raise ValueError("name the number by phone_number or by phone_number_id, not by both or neither")
        return self


class InboundData(BaseModel):
    phone_number_id: PhoneNumberId
    phone_number: str
    assigned_user_id: str | None
    callback_url: str | None
    transcript: bool


class InboundConfiguration(BaseModel):
    phone_number_id: PhoneNumberId
    phone_number: str
    assigned_user_id: str | None
    assigned_org_id: None = None
    assigned_agent_id: None = None
    assigned_workflow_id: None = None
    callback_url: str | None
    transcript: bool
    status: Literal["active", "expired"]
    provider_name: None = None
    metadata_type: Literal["c2c"] = "c2c"


class InboundConfigurations(BaseModel):
    user_id: str = Field(examples=["USR_0A1B2C3D"])
    configured_only: bool
    count: int
    callbacks: list[InboundConfiguration]


@router.get(
    "/mobile-numbers",
    summary="List your numbers",
    response_model=Envelope[MobileNumbers],
    responses=errors(400, 401),
)
async def list_numbers(request: Request, claims: LoggedIn) -> Response:
    """Your numbers, with the channels of each and of your pool. Active channels are those of live calls."""
    channels = await _channels(request, claims)
    shown = [MobileNumber(**_shown(did)) for did in channels.dids]
    data = MobileNumbers(
        user_id=claims.user_id,
        count=len(shown),
        pool_total_channels=channels.pool_total,
        pool_active_channels=channels.pool_active,
        numbers=shown,
    )
    return success("Mobile numbers fetched successfully", data)


@router.get(
    "/mobile-numbers/channel-allocation",
    summary="See the channels of each number",
    response_model=Envelope[Allocation],
    responses=errors(400, 401),
)
async def get_allocation(request: Request, claims: LoggedIn) -> Response:
    """What each number has allocated, and what is free."""
    channels = await _channels(request, claims)
    return success("Channel allocation fetched successfully", _allocation(claims, channels))


@router.put(
    "/mobile-numbers/channel-allocation",
    summary="Set the channels of all your numbers",
    response_model=Envelope[Allocation],
    responses=errors(400, 401, 404, 413, 422),
    openapi_extra=json_body(AllocationRequest),
)
async def put_allocation(request: Request, claims: LoggedIn) -> Response:
    """A number that is not named gets no channels."""
    return await _allocate(request, claims, replace=True)


@router.patch(
    "/mobile-numbers/channel-allocation",
    summary="Change the channels of some numbers",
    response_model=Envelope[Allocation],
    responses=errors(400, 401, 404, 413, 422),
    openapi_extra=json_body(AllocationRequest),
)
async def patch_allocation(request: Request, claims: LoggedIn) -> Response:
    """A number that is not named keeps its channels."""
    return await _allocate(request, claims, replace=False)


@router.get(
    "/mobile-numbers/channel-allocation/utilization",
    summary="See which channels are in use",
    response_model=Envelope[UtilizationData],
    responses=errors(400, 401, 404, 422),
)
async def get_utilization(
    request: Request, claims: LoggedIn, did: Annotated[str | None, Query(), UnlessBlank] = None
) -> Response:
    """The use of your channels, or of one number's. The pool's figures cover all numbers."""
    try:
        number = None if did is None else get_resources(request).numbers.read(did)
    except ValueError:
        raise NoSuchNumber from None
    channels = await _channels(request, claims, number=number)
    found = channels.dids
    if number is not None and not found:
        raise NoSuchNumber
    shown = [
        Utilization(
            phone_number_id=one.id,
            allocated_channels=one.allocated,
            active_channels=one.active,
            available_channels=one.available,
        )
        for one in found
    ]
    data = UtilizationData(**_pool(claims, channels), numbers=shown)
    return success("Channel utilization fetched successfully", data)


@router.post(
    "/calls/inbound-callback-url",
    summary="Set the inbound callback of a number",
    response_model=Envelope[InboundData],
    responses=errors(400, 401, 403, 404, 409, 413, 422),
    openapi_extra=json_body(InboundRequest),
)
async def set_inbound(request: Request, claims: LoggedIn) -> Response:
    """Sets the inbound callback of one of your numbers. null removes it."""
    body = await read_body(request, InboundRequest)
    async with get_resources(request).db.transaction() as session:
        did = await dids.find(session, number=body.phone_number, phone_number_id=body.phone_number_id, to_change=True)
        did = await dids.set_inbound(
            session, claims.user_id, did, callback_url=body.callback_url, transcript=body.transcript
        )
    data = InboundData(
        phone_number_id=did.id,
        phone_number=did.number,
        assigned_user_id=did.user_id,
        callback_url=did.inbound_callback_url,
        transcript=did.inbound_transcript,
    )
    return success("Inbound callback configuration updated", data)


@router.get(
    "/calls/inbound-callback-url",
    summary="List the inbound callbacks of your numbers",
    response_model=Envelope[InboundConfigurations],
    responses=errors(400, 401, 422),
)
async def list_inbound(
    request: Request,
    claims: LoggedIn,
    configured: Annotated[bool | None, Query(alias="configured_only"), UnlessBlank] = None,
) -> Response:
    """The inbound callback of each of your numbers."""
    configured_only = configured is True
    async with get_resources(request).db.transaction() as session:
        found = await dids.list_inbound(session, claims.user_id, configured_only=configured_only)
    data = InboundConfigurations(
        user_id=claims.user_id,
        configured_only=configured_only,
        count=len(found),
        callbacks=[_configuration(did) for did in found],
    )
    return success("Inbound callback configurations fetched", data)


async def _channels(request: Request, claims: Claims, *, number: PhoneNumber | None = None) -> Channels:
    async with get_resources(request).db.transaction() as session:
        return await dids.get_channels(session, claims.user_id, number=number)


async def _allocate(request: Request, claims: Claims, *, replace: bool) -> Response:
    body = await read_body(request, AllocationRequest)
    shares = [ChannelAllocation(item.allocated_channels, item.did, item.phone_number_id) for item in body.allocations]
    async with get_resources(request).db.transaction() as session:
        channels = await dids.allocate(session, claims.user_id, shares, replace=replace)
    return success("Channel allocation updated successfully", _allocation(claims, channels))


def _allocation(claims: Claims, channels: Channels) -> Allocation:
    shown = [AllocatedNumber(**_shown(did), available_channels=did.available) for did in channels.dids]
    return Allocation(**_pool(claims, channels), count=len(shown), numbers=shown)


def _pool(claims: Claims, channels: Channels) -> dict[str, Any]:
    return {
        "user_id": claims.user_id,
        "pool_total_channels": channels.pool_total,
        "pool_active_channels": channels.pool_active,
        "pool_available_channels": channels.pool_available,
    }


def _shown(did: DidView) -> dict[str, Any]:
    return {
        "phone_number_id": did.id,
        "mobile_number": did.number,
        "did_status": "expired" if did.expired else "active",
        "max_channels": did.max_channels,
        "allocated_channels": did.allocated,
        "active_channels": did.active,
    }


def _configuration(did: Did) -> InboundConfiguration:
    return InboundConfiguration(
        phone_number_id=did.id,
        phone_number=did.number,
        assigned_user_id=did.user_id,
        callback_url=did.inbound_callback_url,
        transcript=did.inbound_transcript,
        status="active" if did.expired_at is None else "expired",
    )
