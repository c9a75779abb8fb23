"""`ringback outcomes`: which outcomes and fields a user's transcripts have."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.common import audit_change, console, fail, failures_explained, with_database
from app.cli.users import Email, get_user

if TYPE_CHECKING:
    from app.db import Database

app = typer.Typer(help="Outcomes of calls: the default set, the detailed one, or a user's own.", no_args_is_help=True)


class Preset(StrEnum):
    DEFAULT = "default"
    DETAILED = "detailed"


@app.command("set")
@failures_explained
def set_(
    email: Email,
    file: Annotated[Path | None, typer.Argument(help="TOML file of outcomes and fields", show_default=False)] = None,
    preset: Annotated[Preset, typer.Option(help="For outcomes that the file does not name")] = Preset.DEFAULT,
) -> None:
    """Choose the outcomes of a user's next transcripts. Replaces what was chosen before."""
    from app import outcome_sets
    from app.audit import AuditAction
    from app.options import SettingsError
    from app.transcription.outcome_set import OutcomeSet

    detailed = preset is Preset.DETAILED
    try:
        chosen = OutcomeSet(detailed) if file is None else outcome_sets.parse(file.read_text(), detailed=detailed)
    except (SettingsError, UnicodeDecodeError) as error:
        fail(f"{file}: {error}")

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            user = await get_user(session, email)
            await outcome_sets.save(session, user.id, chosen)
            names = ", ".join(one.name for one in chosen.outcomes) or preset.value
            await audit_change(session, AuditAction.CHANGED_OUTCOMES, subject=user.email, owner=user.id, detail=names)
        console.print(f"The next transcripts of {user.email} have these outcomes: {names}", soft_wrap=True)

    with_database(work)


@app.command()
@failures_explained
def show(email: Email) -> None:
    """Show the outcomes that a user's transcripts can have."""
    from app import outcome_sets
    from app.transcription.outcome import DETAILS, OUTCOMES

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            chosen = await outcome_sets.get(session, (await get_user(session, email)).id)
        table = Table(box=None)
        for title in ("outcome", "description", "examples"):
            table.add_column(title, overflow="fold")
        for one in chosen.outcomes:
            table.add_row(
                f"{one.name} (default)" if one.default else one.name, one.description, "; ".join(one.examples)
            )
        if not chosen.outcomes:
            for name in (*OUTCOMES, *(DETAILS if chosen.detailed else ())):
                table.add_row(name, "", "")
        console.print(table)
        for field in chosen.fields:
            console.print(f"Field {field.name}: {field.description}", soft_wrap=True)

    with_database(work)


@app.command()
@failures_explained
def clear(email: Email) -> None:
    """Go back to the default set."""
    from app import outcome_sets
    from app.audit import AuditAction

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            user = await get_user(session, email)
            await outcome_sets.clear(session, user.id)
            await audit_change(
                session, AuditAction.CHANGED_OUTCOMES, subject=user.email, owner=user.id, detail="default"
            )
        console.print(f"The next transcripts of {user.email} have the default outcomes")

    with_database(work)
