"""`ringback dids`: rented numbers."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.common import console, fail, failures_explained, read_number, with_database
from app.cli.users import get_user

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db import Database
    from app.models import Did

app = typer.Typer(help="Rented numbers: add, list, assign, expire.", no_args_is_help=True)

Number = Annotated[str, typer.Argument(help="The number, however it is written", show_default=False)]


@app.command()
@failures_explained
def add(
    number: Number,
    user: Annotated[str | None, typer.Option(help="Whose it is, by e-mail", show_default=False)] = None,
    max_channels: Annotated[int, typer.Option(min=1, help="Calls it can hold at once")] = 1,
    provider: Annotated[str | None, typer.Option(help="What dials its calls", show_default="the default")] = None,
) -> None:
    """Add a number. Its owner then allocates channels of their pool to it."""
    from app import dids, telephony_providers

    read = read_number(number)

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            owner = None if user is None else await get_user(session, user)
            if provider is not None:
                await telephony_providers.get_config(session, provider)
            did = await dids.add(session, read, owner=owner, max_channels=max_channels, provider=provider)
        console.print(f"Added {did.number} ({did.id}), {did.max_channels} channels at most", soft_wrap=True)

    with_database(work)


@app.command("list")
@failures_explained
def list_() -> None:
    """List all numbers."""
    from app import dids

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            everything = await dids.list_all(session)
        table = Table(box=None)
        for name in ("number", "id", "user", "channels", "of at most", "status", "provider", "inbound callback"):
            table.add_column(name, overflow="fold")
        for did, email in everything:
            table.add_row(
                did.number,
                did.id,
                email or "",
                str(did.allocated_channels),
                str(did.max_channels),
                "active" if did.expired_at is None else "expired",
                did.provider or "",
                did.inbound_callback_url or "",
            )
        console.print(table if everything else "No numbers yet. Add one: ringback dids add NUMBER --user EMAIL")

    with_database(work)


@app.command()
@failures_explained
def assign(
    number: Number,
    user: Annotated[str | None, typer.Option(help="By e-mail; without it the number is nobody's")] = None,
) -> None:
    """Give a number to a user, or to nobody. Its channels and its inbound callback are reset."""
    from app import dids

    async def assigned(session: "AsyncSession", did: "Did") -> str:
        owner = None if user is None else await get_user(session, user)
        await dids.assign(session, did, owner)
        return f"{did.number} is {owner.email}'s" if owner else f"{did.number} is nobody's"

    _change(number, assigned)


@app.command("set")
@failures_explained
def set_(
    number: Number,
    provider: Annotated[str, typer.Option(help="What dials its calls; `default`: the default provider")],
) -> None:
    """Choose the provider that dials the calls of a number."""
    from app import telephony_providers

    async def changed(session: "AsyncSession", did: "Did") -> str:
        if provider != "default":
            await telephony_providers.get_config(session, provider)
        did.provider = None if provider == "default" else provider
        return f"New calls of {did.number} are dialed by {did.provider or 'the default provider'}"

    _change(number, changed)


@app.command()
@failures_explained
def expire(number: Number, undo: Annotated[bool, typer.Option("--undo", help="Make it active again")] = False) -> None:
    """Expire a number, so that no call can be ordered on it."""

    async def expired(_: "AsyncSession", did: "Did") -> str:
        did.expired_at = None if undo else datetime.now(UTC)
        return f"{did.number} is {'active' if undo else 'expired'}"

    _change(number, expired)


def _change(number: str, change: "Callable[[AsyncSession, Did], Awaitable[str]]") -> None:
    from app import dids

    read = read_number(number)

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            did = await dids.find(session, number=read, to_change=True)
            if did is None:
                fail(f"There is no number {number}. `ringback dids list` shows them")
            done = await change(session, did)
        console.print(done, soft_wrap=True)

    with_database(work)
