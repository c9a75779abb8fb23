"""Rented numbers (DIDs) and their channels.

A user has a pool of channels and allocates them to DIDs. A live call uses one channel of its DID. Active channels are
counted from the live calls and never stored. Every function that decides by that count, or allocates, locks the user's
row first.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import AlreadyExists, Conflict, NoSuchNumber, NotYourNumber, ValidationFailed
from app.models import Call, Did, User
from app.numbers import PhoneNumber

_MOST_SHOWN = 500
_LONGEST_LABEL = 40

_WARNINGS = (
    "No channels allocated for this DID; call accepted",
    "Allocated channel limit exceeded for this DID; call accepted",
    "Client channel pool exhausted; call accepted",
)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A channel of a DID, and the warning for the call's client."""

    did_id: str
    provider: str | None
    """What dials calls of this DID. None: the default provider."""
    warning: str | None


@dataclass(frozen=True, slots=True)
class DidView:
    """One number with its channels."""

    id: str
    number: str
    expired: bool
    max_channels: int
    allocated: int
    active: int

    @property
    def available(self) -> int:
        return max(0, self.allocated - self.active)


@dataclass(frozen=True, slots=True)
class Channels:
    """A user's pool and numbers."""

    pool_total: int
    pool_active: int
    dids: list[DidView]

    @property
    def pool_available(self) -> int:
        return max(0, self.pool_total - self.pool_active)


@dataclass(frozen=True, slots=True)
class ChannelAllocation:
    """The number of channels for one DID, which is named by its number or its id."""

    channels: int
    did: PhoneNumber | None = None
    phone_number_id: str | None = None


async def reserve(session: AsyncSession, user_id: str, number: PhoneNumber) -> Reservation:
    """Reserve a channel of the user's number for the call that this transaction creates.

    Raises `NoSuchNumber`, `NotYourNumber`, and `Conflict` when the number has expired. Too few channels only give a
    warning.
    """
    pool = await _lock_pool(session, user_id)
    did = await find(session, number=number)
    if did is None:
        raise NoSuchNumber("DID not found")
    if did.user_id != user_id:
        raise NotYourNumber("This DID is not assigned to you")
    if did.expired_at is not None:
        raise Conflict("This DID has expired")
    active = await _count_active(session, user_id)
    none_allocated, none_left, pool_empty = _WARNINGS
    warnings = []
    if did.allocated_channels == 0:
        warnings.append(none_allocated)
    elif active.get(did.id, 0) >= did.allocated_channels:
        warnings.append(none_left)
    if sum(active.values()) >= pool:
        warnings.append(pool_empty)
    return Reservation(did.id, did.provider, "|".join(warnings) or None)


async def get_channels(session: AsyncSession, user_id: str, *, number: PhoneNumber | None = None) -> Channels:
    """The user's pool and numbers, ordered by id. With `number`, only that number."""
    pool = await session.scalar(select(User.pool_channels).where(User.id == user_id))
    active = await _count_active(session, user_id)
    query = select(Did).where(Did.user_id == user_id).order_by(Did.id).limit(_MOST_SHOWN)
    mine = await session.scalars(query if number is None else query.where(Did.number == number.digits))
    rows = [
        DidView(
            did.id,
            did.number,
            did.expired_at is not None,
            did.max_channels,
            did.allocated_channels,
            active.get(did.id, 0),
        )
        for did in mine
    ]
    return Channels(pool or 0, sum(active.values()), rows)


async def allocate(
    session: AsyncSession, user_id: str, shares: Sequence[ChannelAllocation], *, replace: bool
) -> Channels:
    """Allocate channels of the pool to numbers. With `replace`, all other numbers get none.

    Raises `ValidationFailed` for an impossible allocation, and `NoSuchNumber` for a number that is not the user's.
    """
    pool = await _lock_pool(session, user_id)
    locked = select(Did).where(Did.user_id == user_id).order_by(Did.id).with_for_update()
    mine = {did.id: did for did in await session.scalars(locked)}
    by_number = {did.number: did for did in mine.values()}
    active = await _count_active(session, user_id)
    wanted: dict[str, int] = {}
    for share in shares:
        did = by_number.get(share.did.digits) if share.did is not None else mine.get(share.phone_number_id or "")
        if did is None:
            raise NoSuchNumber(f"{share.did or share.phone_number_id} is not one of your phone numbers")
        if did.id in wanted:
            raise ValidationFailed(f"{did.number} is named twice")
        wanted[did.id] = share.channels
    if replace:
        wanted = dict.fromkeys((did.id for did in mine.values() if did.allocated_channels), 0) | wanted
    for did_id, channels in wanted.items():
        _check_share(mine[did_id], channels, active.get(did_id, 0))
    total = sum(wanted.get(did.id, did.allocated_channels) for did in mine.values())
    if total > pool:
        raise ValidationFailed(f"Total allocated channels ({total}) exceed the shared pool ({pool}).")
    for did_id, channels in wanted.items():
        mine[did_id].allocated_channels = channels
    await session.flush()
    return await get_channels(session, user_id)


def _check_share(did: Did, channels: int, active: int) -> None:
    if channels < 0:
        raise ValidationFailed(f"{did.number}: allocated_channels must not be below 0")
    if channels > did.max_channels:
        raise ValidationFailed(
            f"{did.number}: allocated_channels {channels} is above its max_channels {did.max_channels}"
        )
    if channels < active:
        raise ValidationFailed(f"{did.number}: allocated_channels {channels} is below its {active} active channels")


async def find(
    session: AsyncSession,
    *,
    number: PhoneNumber | None = None,
    phone_number_id: str | None = None,
    to_change: bool = False,
) -> Did | None:
    """The DID of any user, by its number or its id. `to_change` locks it until the transaction ends."""
    query = select(Did).where(Did.id == phone_number_id if number is None else Did.number == number.digits)
    if to_change:
        query = query.with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(query)).one_or_none()


async def add(
    session: AsyncSession, number: PhoneNumber, *, owner: User | None, max_channels: int, provider: str | None = None
) -> Did:
    """Create a number. `provider` dials its calls; None: the default. Raises `AlreadyExists`, `ValidationFailed`."""
    if max_channels < 1:
        raise ValidationFailed("A number needs at least one channel")
    did = Did(
        id=f"PN_{secrets.randbelow(10**10):010d}",
        number=number.digits,
        user_id=None if owner is None else owner.id,
        max_channels=max_channels,
        provider=provider,
    )
    session.add(did)
    try:
        await session.flush()
    except IntegrityError as error:
        raise AlreadyExists(f"There is a number {number} already") from error
    await session.refresh(did)
    return did


async def set_pool(session: AsyncSession, user: User, channels: int) -> None:
    """Set how many channels the user can allocate. Raises `Conflict` below the number that is allocated."""
    await _lock_pool(session, user.id)
    allocated = await session.scalar(select(func.sum(Did.allocated_channels)).where(Did.user_id == user.id)) or 0
    if channels < allocated:
        raise Conflict(
            f"{allocated} channels are allocated to numbers of {user.email}, who has to free some first "
            "(PATCH /api/mobile-numbers/channel-allocation)"
        )
    user.pool_channels = channels


async def assign(session: AsyncSession, did: Did, owner: User | None) -> None:
    """Give the number to this user, or to nobody. Its channels and its inbound callback are reset."""
    did.user_id = None if owner is None else owner.id
    did.allocated_channels = 0
    did.inbound_callback_url = None
    did.inbound_transcript = False
    did.label = None


async def list_all(session: AsyncSession) -> list[tuple[Did, str | None]]:
    """All numbers, each with the e-mail address of its user."""
    query = select(Did, User.email).outerjoin(User, User.id == Did.user_id).order_by(Did.number)
    return [(row.Did, row.email) for row in await session.execute(query)]


async def set_inbound(
    session: AsyncSession, user_id: str, did: Did | None, *, callback_url: str | None, transcript: bool
) -> Did:
    """Set where calls that come in on this number are reported. Raises `NoSuchNumber`, `Conflict`, `NotYourNumber`."""
    if did is None:
        raise NoSuchNumber
    if did.user_id is None:
        raise Conflict("This phone number is not assigned to anybody")
    if did.user_id != user_id:
        raise NotYourNumber
    did.inbound_callback_url = callback_url
    did.inbound_transcript = transcript
    return did


async def list_inbound(session: AsyncSession, user_id: str, *, configured_only: bool) -> list[Did]:
    """The user's numbers, or only those with an inbound callback."""
    query = select(Did).where(Did.user_id == user_id).order_by(Did.id).limit(_MOST_SHOWN)
    if configured_only:
        query = query.where(Did.inbound_callback_url.is_not(None))
    return list(await session.scalars(query))


async def read_labels(session: AsyncSession, user_id: str) -> dict[str, str]:
    """What the user calls the own numbers, by the numbers' ids."""
    query = select(Did.id, Did.label).where(Did.user_id == user_id, Did.label.is_not(None))
    return {row.id: row.label for row in await session.execute(query)}


async def set_label(session: AsyncSession, user_id: str, phone_number_id: str, label: str) -> None:
    """Name one of the user's numbers. An empty label removes the name. Raises `NoSuchNumber`, `ValidationFailed`."""
    if len(label) > _LONGEST_LABEL or not (label.isprintable() or not label):
        raise ValidationFailed(f"A name is one line of up to {_LONGEST_LABEL} characters")
    did = await find(session, phone_number_id=phone_number_id, to_change=True)
    if did is None or did.user_id != user_id:
        raise NoSuchNumber
    did.label = label or None


async def _lock_pool(session: AsyncSession, user_id: str) -> int:
    """Lock this user's channels against other counts and allocations. Returns the size of the pool."""
    pool = await session.scalar(select(User.pool_channels).where(User.id == user_id).with_for_update(key_share=True))
    return pool or 0


async def _count_active(session: AsyncSession, user_id: str) -> dict[str, int]:
    counting = (
        select(Call.did_id, func.count())
        .where(Call.user_id == user_id, Call.ended_at.is_(None), Call.did_id.is_not(None))
        .group_by(Call.did_id)
    )
    return {str(did_id): int(count) for did_id, count in await session.execute(counting)}
