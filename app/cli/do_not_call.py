"""`ringback do-not-call`: customers who must not be called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.common import audit_change, console, fail, failures_explained, read_number, with_database
from app.cli.users import get_user
from app.numbers import mask

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db import Database

app = typer.Typer(help="Customers who must not be called: add, remove, import, list.", no_args_is_help=True)

OfUser = Annotated[
    str | None, typer.Option("--user", help="Only for this user's calls, by e-mail", show_default="everybody's calls")
]
Number = Annotated[str, typer.Argument(help="The number, however it is written", show_default=False)]


@app.command()
@failures_explained
def add(number: Number, user: OfUser = None) -> None:
    """Add a number."""
    from app import do_not_call

    read = read_number(number)

    async def work(db: "Database") -> int:
        async with db.transaction() as session:
            added = await do_not_call.add(session, await _find_owner_id(session, user), [read])
            await _audit(session, user, f"added {mask(read.digits)}")
            return added

    added = with_database(work)
    console.print(f"{read} is not called any more" if added else f"{read} was on the list already")


@app.command()
@failures_explained
def remove(number: Number, user: OfUser = None) -> None:
    """Remove a number."""
    from app import do_not_call

    read = read_number(number)

    async def work(db: "Database") -> bool:
        async with db.transaction() as session:
            removed = await do_not_call.remove(session, await _find_owner_id(session, user), read)
            await _audit(session, user, f"removed {mask(read.digits)}")
            return removed

    if not with_database(work):
        fail(f"{read} is not on the list. `ringback do-not-call list` shows it")
    console.print(f"{read} can be called again")


@app.command("import")
@failures_explained
def import_(
    file: Annotated[Path, typer.Argument(help="A CSV file; its first column holds the numbers", show_default=False)],
    user: OfUser = None,
) -> None:
    """Add the numbers of a file: a million take less than a minute."""
    from app import do_not_call
    from app.numbers import NumberRules
    from app.settings import get_settings

    async def work(db: "Database") -> "do_not_call.ImportResult":
        async with db.transaction() as session:
            owner_id = await _find_owner_id(session, user)
        with file.open(encoding="utf-8", errors="replace") as lines:
            result = await do_not_call.import_lines(db, lines, owner_id, NumberRules(get_settings().home_country))
        async with db.transaction() as session:
            await _audit(session, user, f"imported {result.added} numbers")
        return result

    result = with_database(work)
    console.print(f"Added {result.added} numbers; {result.known} were on the list already, or twice in the file")
    if result.fault_count:
        shown = "\n  ".join(result.faults)
        fail(f"{result.fault_count} lines hold no telephone number and were left out. The first:\n  {shown}")


@app.command("list")
@failures_explained
def list_(user: OfUser = None, limit: Annotated[int, typer.Option(min=1, max=1_000_000)] = 100) -> None:
    """List the numbers."""
    from app import do_not_call

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            owner_id = await _find_owner_id(session, user)
            numbers = await do_not_call.list_numbers(session, owner_id, limit=limit)
            total = await do_not_call.count(session, owner_id)
        for number in numbers:
            console.print(number)
        if total > len(numbers) or not numbers:
            console.print(f"{total} numbers in all")

    with_database(work)


async def _audit(session: "AsyncSession", user: str | None, what: str) -> None:
    from app.audit import AuditAction

    subject, owner = user or "the installation", await _find_owner_id(session, user)
    await audit_change(session, AuditAction.CHANGED_DO_NOT_CALL, subject=subject, owner=owner, detail=what)


async def _find_owner_id(session: "AsyncSession", user: str | None) -> str | None:
    return None if user is None else (await get_user(session, user)).id
