"""Rented numbers, their channels and inbound calls of the newest dialect, on the shipped application."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app import dids
from app.db import Database
from app.errors import Conflict
from app.models import Did, User
from app.numbers import PhoneNumber
from app.telephony.base import CallEvent, CallStatus
from tests.conftest import new_user
from tests.envelopes import data_of, error_of
from tests.integration.current_calls import (
    ALLOCATION,
    CREATE,
    CREATED,
    add_did,
    happen,
    order,
    set_pool,
)


async def test_exactly_the_calls_over_the_limit_are_warned(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any
) -> None:
    did = await add_did(db, user, channels=10, allocated=10)
    await set_pool(db, user, 20)
    answers = await asyncio.gather(*(client.post(CREATE, json=order(did), headers=headers) for _ in range(100)))
    warnings = [data_of(answer, CREATED)["warning"] for answer in answers]
    over = "Allocated channel limit exceeded for this DID; call accepted"
    assert warnings.count(None) == 10
    assert warnings.count(over) == 10
    assert warnings.count(f"{over}|Client channel pool exhausted; call accepted") == 80
    shown = data_of(await client.get("/api/mobile-numbers", headers=headers), "Mobile numbers fetched successfully")
    assert shown["pool_active_channels"] == shown["numbers"][0]["active_channels"] == 100


async def test_a_channel_is_free_again_when_its_call_has_ended(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any
) -> None:
    did = await add_did(db, user, channels=1, allocated=1)
    await set_pool(db, user, 1)
    first = data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)
    second = data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)
    assert first["warning"] is None
    assert second["warning"] is not None
    for created in (first, second):
        await happen(db, created["call_id"], CallEvent("canceled", CallStatus.CANCELED, datetime.now(UTC)))
    assert data_of(await client.post(CREATE, json=order(did), headers=headers), CREATED)["warning"] is None


async def test_numbers_and_allocation(client: httpx.AsyncClient, db: Database, user: User, headers: Any) -> None:
    one, two = await add_did(db, user, channels=5), await add_did(db, user, channels=5)
    await set_pool(db, user, 6)
    put = {"allocations": [{"did": one.number[2:], "allocated_channels": 4}]}
    data = data_of(await client.put(ALLOCATION, json=put, headers=headers), "Channel allocation updated successfully")
    pool = ["user_id", "pool_total_channels", "pool_active_channels", "pool_available_channels"]
    assert list(data) == [*pool, "count", "numbers"]
    patch = {"allocations": [{"phone_number_id": two.id, "allocated_channels": 2}]}
    data = data_of(
        await client.patch(ALLOCATION, json=patch, headers=headers), "Channel allocation updated successfully"
    )
    assert {row["mobile_number"]: row["allocated_channels"] for row in data["numbers"]} == {
        one.number: 4,
        two.number: 2,
    }
    assert data == data_of(await client.get(ALLOCATION, headers=headers), "Channel allocation fetched successfully")
    await client.put(ALLOCATION, json=put, headers=headers)
    use = data_of(
        await client.get(f"{ALLOCATION}/utilization", params={"did": two.number}, headers=headers),
        "Channel utilization fetched successfully",
    )
    assert list(use) == [*pool, "numbers"]
    assert use["numbers"] == [
        {
            "phone_number_id": two.id,
            "did": None,
            "allocated_channels": 0,
            "active_channels": 0,
            "available_channels": 0,
        }
    ]
    foreign = await add_did(db, None)
    error_of(await client.get(f"{ALLOCATION}/utilization", params={"did": foreign.number}, headers=headers), 404)


async def test_allocation_refuses(client: httpx.AsyncClient, db: Database, user: User, headers: Any) -> None:
    mine, foreign = await add_did(db, user, channels=5), await add_did(db, None)
    await set_pool(db, user, 4)
    await client.post(CREATE, json=order(mine), headers=headers)

    async def refused(status: int, *items: dict[str, Any]) -> str:
        return error_of(await client.put(ALLOCATION, json={"allocations": items}, headers=headers), status)

    await refused(422)
    await refused(422, {"allocated_channels": 1})
    await refused(422, {"did": mine.number, "phone_number_id": mine.id, "allocated_channels": 1})
    await refused(
        422,
        {"did": mine.number, "allocated_channels": 1},
        {"phone_number_id": mine.id, "allocated_channels": 1},
    )
    await refused(422, {"did": mine.number, "allocated_channels": -1})
    assert "6" in await refused(422, {"did": mine.number, "allocated_channels": 6})
    assert "5" in (said := await refused(422, {"did": mine.number, "allocated_channels": 5}))
    assert "4" in said
    await refused(422, {"did": mine.number, "allocated_channels": 0})
    await refused(404, {"did": foreign.number, "allocated_channels": 1})
    error_of(await client.put(ALLOCATION, json=[], headers=headers), 422)
    bare = [{"did": mine.number, "allocated_channels": 1}]
    data_of(await client.put(ALLOCATION, json=bare, headers=headers), "Channel allocation updated successfully")


async def test_parallel_allocations_never_exceed_the_pool(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any
) -> None:
    mine = [await add_did(db, user, channels=10) for _ in range(4)]
    await set_pool(db, user, 10)
    answers = await asyncio.gather(
        *(
            client.patch(
                ALLOCATION,
                json={"allocations": [{"did": mine[n % 4].number, "allocated_channels": 1 + n % 5}]},
                headers=headers,
            )
            for n in range(40)
        )
    )
    accepted = [answer.json()["data"] for answer in answers if answer.status_code == 200]
    assert accepted
    for data in accepted:
        assert sum(row["allocated_channels"] for row in data["numbers"]) <= 10


async def test_inbound_configuration(client: httpx.AsyncClient, db: Database, user: User, headers: Any) -> None:
    path = "/api/calls/inbound-callback-url"
    mine, nobodys = await add_did(db, user), await add_did(db, None)
    others = await add_did(db, await new_user(db))
    body = {"phone_number": mine.number, "callback_url": "https://crm.example.com/in", "transcript": True}
    data = data_of(await client.post(path, json=body, headers=headers), "Inbound callback configuration updated")
    assert data == {
        "phone_number_id": mine.id,
        "phone_number": mine.number,
        "assigned_user_id": user.id,
        "callback_url": "https://crm.example.com/in",
        "transcript": True,
    }
    await add_did(db, user)
    listed = data_of(await client.get(path, headers=headers), "Inbound callback configurations fetched")
    assert (listed["configured_only"], listed["count"]) == (False, 2)
    listed = data_of(
        await client.get(path, params={"configured_only": "true"}, headers=headers),
        "Inbound callback configurations fetched",
    )
    assert [row["phone_number_id"] for row in listed["callbacks"]] == [mine.id]
    assert listed["callbacks"][0]["assigned_org_id"] is None
    for status, change in (
        (404, {"phone_number": "910000000001"}),
        (409, {"phone_number": nobodys.number}),
        (403, {"phone_number": others.number}),
        (422, {"phone_number_id": mine.id}),
        (422, {"callback_url": "x"}),
        (422, {"phone_number": None}),
        (422, {"phone_number": None, "phone_number_id": "\0"}),
        (404, {"phone_number": None, "phone_number_id": "PN_0"}),
    ):
        error_of(await client.post(path, json={**body, **change}, headers=headers), status)


async def test_a_number_that_changes_hands_takes_nothing_along(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any
) -> None:
    """Whatever its old owner changes meanwhile."""
    mine, other = await add_did(db, user, channels=5), await new_user(db)
    await set_pool(db, user, 5)
    async with db.transaction() as session:
        moved = await dids.find(session, number=PhoneNumber(mine.number), to_change=True)
        assert moved is not None
        body = {"phone_number_id": mine.id, "callback_url": "https://old.example.com/"}
        setting = asyncio.create_task(client.post("/api/calls/inbound-callback-url", json=body, headers=headers))
        share = {"allocations": [{"did": mine.number, "allocated_channels": 5}]}
        dividing = asyncio.create_task(client.patch(ALLOCATION, json=share, headers=headers))
        await asyncio.sleep(0.2)  # mostly long enough for both to reach the lock
        await dids.assign(session, moved, await session.get_one(User, other.id))
    error_of(await setting, 403)
    error_of(await dividing, 404)
    async with db.transaction() as session:
        did = await session.get_one(Did, mine.id)
        assert (did.user_id, did.inbound_callback_url, did.allocated_channels) == (other.id, None, 0)


async def test_a_pool_is_not_made_smaller_than_what_is_divided(db: Database, user: User) -> None:
    await add_did(db, user, channels=10, allocated=6)
    async with db.transaction() as session:
        mine = await session.get_one(User, user.id)
        with pytest.raises(Conflict, match="6 channels"):
            await dids.set_pool(session, mine, 5)
        await dids.set_pool(session, mine, 6)


async def test_a_number_without_channels_does_not_block_others(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any
) -> None:
    """Its live calls already exceed its limit."""
    await set_pool(db, user, 5)
    busy, other = await add_did(db, user), await add_did(db, user)
    await client.post(CREATE, json=order(busy), headers=headers)
    share = {"did": other.number, "allocated_channels": 5}
    answer = await client.put(ALLOCATION, json={"allocations": [share]}, headers=headers)
    data_of(answer, "Channel allocation updated successfully")
    named = {"did": busy.number, "allocated_channels": 0}
    answer = await client.put(ALLOCATION, json={"allocations": [share, named]}, headers=headers)
    assert "below its 1 active channels" in error_of(answer, 422)


async def test_what_a_query_leaves_blank_is_unset(
    client: httpx.AsyncClient, db: Database, user: User, headers: Any
) -> None:
    did = await add_did(db, user)
    for query, found in (("?did=", 1), (f"?did={did.number[2:]}", 1)):
        answer = await client.get(f"{ALLOCATION}/utilization{query}", headers=headers)
        assert len(data_of(answer, "Channel utilization fetched successfully")["numbers"]) == found
    foreign = await add_did(db, await new_user(db))
    for name in (foreign.number, "nonsense"):
        error_of(await client.get(f"{ALLOCATION}/utilization?did={name}", headers=headers), 404)
    answer = await client.get("/api/calls/inbound-callback-url?configured_only=", headers=headers)
    assert data_of(answer, "Inbound callback configurations fetched")["configured_only"] is False
