"""`ringback deliveries`: callbacks sent to clients, and their delivery status."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.cli.common import console, fail, failures_explained, with_database, with_hints
from app.cli.users import get_user

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db import Database
    from app.hints import Hints
    from app.models import Delivery

app = typer.Typer(help="Callbacks: list them, show one, send one again.", no_args_is_help=True)

_SHOWN_ANSWER = 80

MessageId = Annotated[str, typer.Argument(help="The callback's webhook-id: msg_…", show_default=False)]


@app.command("list")
@failures_explained
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    user: Annotated[str | None, typer.Option(help="Only this user's, by e-mail")] = None,
    call: Annotated[str | None, typer.Option(help="Only of this call")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed")] = None,
) -> None:
    """List the newest callbacks."""
    from app import callbacks

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            owner = None if user is None else await get_user(session, user)
            found = await callbacks.list_deliveries(
                session, limit=limit, user_id=None if owner is None else owner.id, call_id=call, status=status
            )
        wide = Console(highlight=False, markup=False, width=max(console.width, 190))
        wide.print(table_of(found) if found else "No callbacks. A call has some if it was ordered with a callback_url")

    with_database(work)


def table_of(found: "Sequence[Delivery]") -> Table:
    """A table of callbacks, one per line."""
    from app.cli.follow import coloured

    table = Table(box=None)
    for name in ("created (UTC)", "id", "call", "event", "status", "tries", "next (UTC)", "last answer"):
        table.add_column(name, no_wrap=True)
    for delivery in found:
        table.add_row(
            f"{delivery.created_at:%m-%d %H:%M:%S}",
            delivery.message_id,
            delivery.call_id,
            delivery.event,
            coloured(delivery.status),
            str(delivery.attempts),
            _next(delivery),
            (delivery.last_answer or "")[:_SHOWN_ANSWER],
        )
    return table


@app.command()
@failures_explained
def show(message_id: MessageId) -> None:
    """Show one callback: its URL, its content and the receiver's answer."""

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            delivery = await _get_delivery(session, message_id)
        facts = Table(box=None, show_header=False)
        for name, value in (
            ("id", delivery.message_id),
            ("call", delivery.call_id),
            ("event", delivery.event),
            ("url", delivery.url),
            ("status", f"{delivery.status} after {delivery.attempts} tries"),
            ("next try (UTC)", _next(delivery)),
            ("last answer", delivery.last_answer),
            ("created (UTC)", f"{delivery.created_at:%Y-%m-%d %H:%M:%S}"),
        ):
            if value:
                facts.add_row(name, value)
        console.print(facts)
        console.print(json.dumps(delivery.body, indent=2, ensure_ascii=False), soft_wrap=True)

    with_database(work)


@app.command()
@failures_explained
def replay(
    message_id: Annotated[
        str | None, typer.Argument(help="The callback's webhook-id: msg_…", show_default=False)
    ] = None,
    failed_of: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="All of this user's that were given up", show_default=False)
    ] = None,
) -> None:
    """Send callbacks again: the same messages, on a new schedule."""
    from app import callbacks

    if (message_id is None) == (failed_of is None):
        fail("Say which: ringback deliveries replay ID, or --failed-of EMAIL")

    async def work(db: "Database", hints: "Hints") -> None:
        async with db.transaction() as session:
            if failed_of is not None:
                user = await get_user(session, failed_of)
                chosen = await callbacks.list_deliveries(session, user_id=user.id, status="failed")
            else:
                chosen = [await _get_delivery(session, message_id or "")]
        for delivery in reversed(chosen):  # oldest first, in the order of their events
            async with db.transaction() as session:
                await callbacks.replay(session, delivery)
        what = message_id or ("1 callback" if len(chosen) == 1 else f"{len(chosen)} callbacks")
        console.print(f"{what} to be sent again")

    with_hints(work)


async def _get_delivery(session: "AsyncSession", message_id: str) -> "Delivery":
    from app import callbacks

    delivery = await callbacks.find_delivery(session, message_id) if message_id.isascii() else None
    if delivery is None:
        fail(f"There is no callback {message_id}. `ringback deliveries list` shows the newest")
    return delivery


def _next(delivery: "Delivery") -> str:
    return f"{delivery.next_attempt_at:%m-%d %H:%M:%S}" if delivery.status == "pending" else ""
