"""`ringback calls` and `ringback call`: see and place calls."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from app import numbers
from app.cli.common import (
    console,
    fail,
    failures_explained,
    read_agent,
    read_number,
    with_database,
    with_hints,
)
from app.cli.deliveries import table_of
from app.cli.users import get_user

if TYPE_CHECKING:
    from app import history
    from app.db import Database
    from app.hints import Hints

app = typer.Typer(help="Calls: list them, show what happened to one.", no_args_is_help=True)

_LOGIN_SECONDS = 60  # it must only outlive the statement that creates the call

Plain = Annotated[bool, typer.Option("--numbers", help="Show telephone numbers in full")]


@app.command("list")
@failures_explained
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    user: Annotated[str | None, typer.Option(help="Only this user's, by e-mail")] = None,
    plain: Plain = False,
) -> None:
    """List the newest calls."""
    from app import history
    from app.cli.follow import coloured

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            owner = None if user is None else await get_user(session, user)
            lines = await history.list_calls(session, limit=limit, user=owner)
        table = Table(box=None)
        for name in ("created (UTC)", "id", "customer", "agent", "status", "transcript", "outcome"):
            table.add_column(name, no_wrap=True)
        for line in lines:
            call, transcript = line.call, line.transcript
            table.add_row(
                f"{call.created_at:%m-%d %H:%M:%S}",
                call.id,
                _shown(call.customer_number, plain),
                _shown(call.agent_number, plain),
                coloured(call.status),
                coloured(transcript.status),
                transcript.outcome or "",
            )
        wide = Console(highlight=False, markup=False, width=max(console.width, 130))
        wide.print(table if lines else "No calls yet. Place one: ringback call CUSTOMER AGENT --user EMAIL")

    with_database(work)


@app.command()
@failures_explained
def show(call_id: str, plain: Plain = False) -> None:
    """Show what happened to a call, step by step, and what was said."""
    from app import history

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            found = await history.find_call_history(session, call_id) if call_id.isascii() else None
        if found is None:
            fail(f"There is no call {call_id}. `ringback calls list` shows the newest")
        _print_history(found, plain)

    with_database(work)


@app.command()
@failures_explained
def cancel(call_id: str) -> None:
    """End a call, as far as its provider can."""
    from app import cancellation
    from app.errors import NoSuchCall
    from app.provider_directory import ProviderDirectory
    from app.settings import get_settings

    async def work(db: "Database", hints: "Hints") -> str:
        directory = ProviderDirectory(db, get_settings())
        try:
            async with db.transaction() as session:
                return await cancellation.cancel(session, directory, call_id)
        except NoSuchCall:
            fail(f"There is no call {call_id}. `ringback calls list` shows the newest")
        finally:
            await directory.aclose()

    result = with_hints(work)
    said = {"hanging_up": "is being hung up", "ended_before": "had ended before"}
    console.print(f"{call_id} {said.get(result, 'is canceled')}")


@failures_explained
def place(
    customer: Annotated[str, typer.Argument(help="The customer's number", show_default=False)],
    agent: Annotated[str, typer.Argument(help="The agent's number, rung first", show_default=False)],
    user: Annotated[str, typer.Option(help="For whom, by e-mail", show_default=False)],
    shown: Annotated[str | None, typer.Option(help="Number both are shown", show_default="RINGBACK_CALLER_ID")] = None,
) -> None:
    """Place a call and follow it to its transcript."""
    from app import accounts, new_calls
    from app.call_rules import RulesReader
    from app.cli.follow import follow
    from app.provider_directory import ProviderDirectory
    from app.settings import get_settings

    order = new_calls.NewCall(
        read_number(customer), read_agent(agent), shown=None if shown is None else read_number(shown)
    )

    async def work(db: "Database", hints: "Hints") -> bool:
        async with db.transaction() as session:
            owner = await get_user(session, user)
            if not owner.is_active:
                fail(f"{owner.email} is inactive. `ringback users activate {owner.email}` changes that")
            claims = await accounts.open_login(session, owner, seconds=_LOGIN_SECONDS)
        settings = get_settings()
        directory = ProviderDirectory(db, settings)
        creator = new_calls.CallCreator(db, hints, directory, RulesReader(db, settings), settings)
        try:
            created = await creator.create(claims, order)
        finally:
            await directory.aclose()
        return await follow(db, created.id, console)

    raise typer.Exit(0 if with_hints(work) else 1)


def _print_history(found: "history.CallHistory", plain: bool) -> None:
    from app.call_state import NOTE_KEY_PREFIX
    from app.cli.follow import coloured, print_transcript

    call = found.call
    facts = Table(box=None, show_header=False)
    facts.add_row("call", call.id)
    facts.add_row("user", found.email)
    facts.add_row("created", f"{call.created_at:%Y-%m-%d %H:%M:%S} UTC")
    facts.add_row("customer", _shown(call.customer_number, plain))
    facts.add_row("agent", _shown(call.agent_number, plain))
    facts.add_row("status", coloured(call.status))
    for name, value in (
        ("provider", None if call.only_reported else call.provider),
        ("recorded", None if call.record else "no, as ordered"),
        ("shown number", call.did and _shown(call.did, plain)),
        ("hangup cause", call.hangup_cause),
        ("ended by", call.ended_by),
        ("failure", call.failure),
        ("provider's id", call.provider_reference),
    ):
        if value:
            facts.add_row(name, value)
    if call.answered_at and call.ended_at:
        seconds = (call.ended_at - call.answered_at).total_seconds()
        talked = f"{seconds:.1f}" if call.reported_talk_seconds is None else str(call.reported_talk_seconds)
        facts.add_row("talked", f"{talked} s")
    if found.recording:
        facts.add_row("recording", f"{found.recording.size_bytes} bytes, {found.recording.storage_key}")
    console.print(facts)

    console.print("\nTimeline")
    timeline = Table("after", "status", "leg", "event", "cause", "detail", box=None)
    for event in found.events:
        timeline.add_row(
            _since(call.created_at, event.happened_at),
            coloured(event.status),
            event.leg or "",
            event.key.partition(":")[0] if event.key.startswith(NOTE_KEY_PREFIX) else event.key,
            event.hangup_cause or "",
            "; ".join(filter(None, (event.detail, "noticed late" if event.late else None))),
        )
    console.print(timeline)
    for task in found.open_tasks:
        trouble = f", last error: {task.last_error}" if task.last_error else ""
        console.print(
            f"open task: {task.kind}, due {task.due_at:%H:%M:%S} UTC, tried {task.attempts} times{trouble}",
            soft_wrap=True,
        )
    console.print()
    print_transcript(found.transcript, console)
    if found.callbacks:
        console.print("\nCallbacks")
        Console(highlight=False, markup=False, width=max(console.width, 190)).print(table_of(found.callbacks))


def _since(start: datetime, at: datetime) -> str:
    return f"{(at - start).total_seconds():6.2f} s"


def _shown(number: str | None, plain: bool) -> str:
    if number is None:
        return ""
    return number if plain else numbers.mask(number)
