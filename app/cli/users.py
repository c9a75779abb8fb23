"""`ringback users`: accounts."""

import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.common import audit_change, console, fail, failures_explained, with_database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db import Database
    from app.models import User

app = typer.Typer(help="Accounts: create, list, change.", no_args_is_help=True)


class OnOff(StrEnum):
    ON = "on"
    OFF = "off"


Email = Annotated[str, typer.Argument(help="The user's e-mail address", show_default=False)]
Password = Annotated[str | None, typer.Option("--password", help="Asked for when absent", show_default=False)]


@app.command()
@failures_explained
def create(
    email: Email,
    password: Password = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="May not log in until activated")] = False,
    unverified: Annotated[bool, typer.Option("--unverified", help="May not log in until verified")] = False,
) -> None:
    """Create a user."""
    from app import accounts

    given = password if password is not None else _ask_for_password()

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            user = await accounts.create_user(session, email, given, active=not inactive, verified=not unverified)
        console.print(f"Created {user.email} ({user.id})", soft_wrap=True)

    with_database(work)


@app.command("list")
@failures_explained
def list_() -> None:
    """List all users."""
    from app import accounts

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            everybody = await accounts.list_users(session)
        table = Table(box=None)
        for name in ("id", "e-mail", "active", "verified", "operator", "created (UTC)"):
            table.add_column(name, overflow="fold")
        for user in everybody:
            states = ("yes" if yes else "no" for yes in (user.is_active, user.is_verified, user.is_operator))
            table.add_row(user.id, user.email, *states, f"{user.created_at:%Y-%m-%d %H:%M}")
        console.print(table if everybody else "No users yet. Create one: ringback users create EMAIL")

    with_database(work)


@app.command()
@failures_explained
def verify(email: Email) -> None:
    """Let a user with a verified e-mail address log in."""

    async def verified(_: "AsyncSession", user: "User") -> str:
        user.is_verified = True
        return f"{user.email} is verified"

    _change(email, verified)


@app.command()
@failures_explained
def activate(email: Email) -> None:
    """Let a user log in again. Earlier logins stay ended."""
    from app import accounts

    async def activated(session: "AsyncSession", user: "User") -> str:
        await accounts.set_active(session, user, active=True)
        return f"{user.email} is active"

    _change(email, activated)


@app.command()
@failures_explained
def deactivate(email: Email) -> None:
    """Lock a user out at once. Logins and tokens end."""
    from app import accounts

    async def deactivated(session: "AsyncSession", user: "User") -> str:
        await accounts.set_active(session, user, active=False)
        return f"{user.email} is inactive; all logins have ended"

    _change(email, deactivated)


@app.command("set-password")
@failures_explained
def set_password(email: Email, password: Password = None) -> None:
    """Set a new password. All logins end."""
    from app import accounts

    given = password if password is not None else _ask_for_password()

    async def changed(session: "AsyncSession", user: "User") -> str:
        await accounts.set_password(session, user, given)
        return f"{user.email} has a new password; all logins have ended"

    _change(email, changed)


@app.command()
@failures_explained
def erase(
    email: Email,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Delete a user with all calls, transcripts and recordings. This cannot be undone."""
    from app import providers, retention
    from app.settings import get_settings

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            user = await get_user(session, email)
        if not yes:
            typer.confirm(f"Delete {user.email} with all calls, transcripts and recordings?", abort=True)
        count = await retention.erase_user(db, providers.storage(get_settings()), user)
        console.print(f"Erased {user.email} and {count} calls", soft_wrap=True)

    with_database(work)


@app.command("set")
@failures_explained
def set_(
    email: Email,
    pool_channels: Annotated[
        int | None, typer.Option(min=0, max=1_000_000, help="Channels to allocate to their numbers")
    ] = None,
    compat_callbacks: Annotated[
        OnOff | None, typer.Option(help="Callbacks with the keys and events that older clients read")
    ] = None,
    operator: Annotated[
        OnOff | None, typer.Option(help="Sees the installation and every user's calls in the console")
    ] = None,
    transcript_vocabulary: Annotated[
        str | None,
        typer.Option(help='Names and terms that people say in their calls: "Sunrise Solar, Priya"; "" for none'),
    ] = None,
) -> None:
    """Change a user's options."""
    from app import accounts, dids, vocabulary

    if pool_channels is None and compat_callbacks is None and operator is None and transcript_vocabulary is None:
        fail(
            "Say what to set: --pool-channels N, --compat-callbacks on|off, --operator on|off or "
            "--transcript-vocabulary TERMS"
        )

    async def changed(session: "AsyncSession", user: "User") -> str:
        if pool_channels is not None:
            await dids.set_pool(session, user, pool_channels)
        if compat_callbacks is not None:
            user.compat_callbacks = compat_callbacks is OnOff.ON
        if operator is not None:
            await accounts.set_operator(session, user, operator is OnOff.ON)
        if transcript_vocabulary is not None:
            await vocabulary.replace(session, user, vocabulary.parse(transcript_vocabulary))
        return await _options(session, user)

    _change(email, changed)


@app.command()
@failures_explained
def show(email: Email) -> None:
    """Show a user's options."""

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            console.print(await _options(session, await get_user(session, email)), soft_wrap=True)

    with_database(work)


async def _options(session: "AsyncSession", user: "User") -> str:
    from app import vocabulary

    terms = ", ".join(await vocabulary.list_terms(session, user.id))
    shown = "on" if user.compat_callbacks else "off"
    role = ", operator" if user.is_operator else ""
    known = f", vocabulary: {terms}" if terms else ""
    return f"{user.email}: {user.pool_channels} channels, compatible callbacks {shown}{role}{known}"


@app.command("webhook-secret")
@failures_explained
def webhook_secret(
    email: Email,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Create a new secret; the old one also signs for a while")
    ] = False,
    overlap_hours: Annotated[int, typer.Option(min=0, max=24 * 30, help="For how long it does")] = 24,
) -> None:
    """Show the secrets that sign a user's callbacks."""
    from app import callbacks

    async def shown(session: "AsyncSession", user: "User") -> str:
        if rotate:
            await callbacks.create_secret(session, user.id, overlap=timedelta(hours=overlap_hours))
        return "\n".join(await callbacks.list_valid_secrets(session, user.id))

    _change(email, shown, secret=True)


@app.command()
@failures_explained
def logout(email: Email) -> None:
    """End all logins of a user."""
    from app import accounts

    async def logged_out(session: "AsyncSession", user: "User") -> str:
        return f"Ended {await accounts.log_out_everywhere(session, user)} logins of {user.email}"

    _change(email, logged_out)


def _change(email: str, change: "Callable[[AsyncSession, User], Awaitable[str]]", *, secret: bool = False) -> None:
    """`secret`: what is printed is for this person alone."""
    from app.audit import AuditAction

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            user = await get_user(session, email)
            done = await change(session, user)
            detail = None if secret else done
            await audit_change(session, AuditAction.CHANGED_USER, subject=user.email, owner=user.id, detail=detail)
        console.print(done, soft_wrap=True)

    with_database(work)


async def get_user(session: "AsyncSession", email: str) -> "User":
    """The user. Exits if there is none."""
    from app import accounts

    user = await accounts.find_user(session, email)
    if user is None:
        fail(f"There is no user {email}. `ringback users list` shows who there is")
    return user


def _ask_for_password() -> str:
    if not sys.stdin.isatty():
        try:
            return sys.stdin.readline().rstrip("\r\n")
        except UnicodeDecodeError:
            fail("The password is no valid text")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
