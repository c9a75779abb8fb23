"""The same two routes as tutorials write them: ORM sessions by dependency, one query per question, a blocking enqueue,
and the library's default password hash in the thread pool. It uses the same tables, so both do the same work."""

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordBearer
from jose import JWTError, jwt
from passlib.hash import argon2
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from app.call_ids import new_call_id
from app.engine_models import Task
from app.models import Call, CallEventRow, LoginSession, TranscriptRow, User
from app.transcripts import new_transcript_id

app = FastAPI()
engine = create_async_engine(os.environ["RINGBACK_DATABASE_URL"], pool_size=10)
sessions = async_sessionmaker(engine, expire_on_commit=False)
bearer = OAuth2PasswordBearer(tokenUrl="/api/developer/login")


class NaiveOrder(BaseModel):
    customer_number: str
    agent_number: str


class NaiveLogin(BaseModel):
    email: str
    password: str


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def get_redis(request: Request) -> ArqRedis:
    if not hasattr(request.app.state, "redis"):
        request.app.state.redis = await create_pool(RedisSettings.from_dsn(os.environ["RINGBACK_REDIS_URL"]))
    redis: ArqRedis = request.app.state.redis
    return redis


async def current_user(token: Annotated[str, Depends(bearer)], session: Session) -> User:
    try:
        claims = jwt.decode(token, os.environ["RINGBACK_SECRET_KEY"], algorithms=["HS256"], audience="ringback")
    except JWTError:
        raise HTTPException(401, "Could not validate credentials") from None
    user = await session.get(User, claims["sub"])
    login = await session.get(LoginSession, UUID(claims["sid"]))
    if user is None or login is None or login.revoked_at is not None:
        raise HTTPException(401, "Could not validate credentials")
    if not user.is_active:
        raise HTTPException(400, "Inactive user")
    return user


CurrentUser = Annotated[User, Depends(current_user)]


@app.post("/api/developer/login")
async def login(body: NaiveLogin, session: Session) -> dict[str, Any]:
    user = (await session.scalars(select(User).where(func.lower(User.email) == body.email.lower()))).one_or_none()
    if user is None or not await run_in_threadpool(argon2.verify, body.password, user.password_hash):
        raise HTTPException(400, "Incorrect email or password")
    return {"status_code": 200, "message": "Login successful", "error": None, "data": {}}


@app.get("/api/developer/calls/{call_id}/transcript")
async def poll(call_id: str, user: CurrentUser, session: Session) -> dict[str, Any]:
    call = await session.get(Call, call_id)
    if call is None:
        raise HTTPException(404, "Call not found")
    if call.user_id != user.id:
        raise HTTPException(403, "Not authorized for this call")
    transcript = (await session.scalars(select(TranscriptRow).where(TranscriptRow.call_id == call_id))).one()
    data = {"call_id": call_id, "transcript_status": transcript.status, "transcript": None}
    return {"status_code": 200, "message": "Transcript not available yet", "error": None, "data": data}


@app.post("/api/developer/calls/click2call")
async def create(
    order: NaiveOrder, user: CurrentUser, session: Session, redis: Annotated[ArqRedis, Depends(get_redis)]
) -> dict[str, Any]:
    call = Call(id=new_call_id(), user_id=user.id, **order.model_dump())
    session.add(call)
    await session.flush()
    session.add(CallEventRow(call_id=call.id, key="queued", status="queued", happened_at=func.now()))
    session.add(TranscriptRow(id=new_transcript_id(), call_id=call.id, user_id=call.user_id))
    task = Task(kind="dial", queue="calls", call_id=call.id)
    session.add(task)
    await session.commit()
    await redis.enqueue_job("run_task", task.id, _queue_name="naive")
    data = {"call_id": call.id, "status": "queued"}
    return {"status_code": 200, "message": "Click2Call request created", "error": None, "data": data}
