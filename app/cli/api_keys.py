"""`ringback api-keys`: keys for other systems that report a user's calls."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.common import console, fail, failures_explained, with_database
from app.cli.users import Email, get_user

if TYPE_CHECKING:
    from app.db import Database

app = typer.Typer(help="Keys to report calls with (X-API-Key): create, list, revoke.", no_args_is_help=True)


@app.command()
@failures_explained
def create(email: Email) -> None:
    """Create a key. It is shown this once."""
    from app import accounts

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            key = await accounts.create_api_key(session, await get_user(session, email))
        console.print(key, soft_wrap=True)

    with_database(work)


@app.command("list")
@failures_explained
def list_() -> None:
    """List all keys by their first characters."""
    from app import accounts

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            keys = await accounts.list_api_keys(session)
        table = Table("key", "user", "created (UTC)", box=None)
        for key, email in keys:
            table.add_row(f"{key.id}…", email, f"{key.created_at:%Y-%m-%d %H:%M}")
        console.print(table if keys else "No keys yet. Create one: ringback api-keys create EMAIL")

    with_database(work)


@app.command()
@failures_explained
def revoke(name: Annotated[str, typer.Argument(help="The key's first characters", show_default=False)]) -> None:
    """End a key at once."""
    from app import accounts

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            if not await accounts.revoke_api_key(session, name.rstrip("…")):
                fail(f"There is no key {name}. `ringback api-keys list` shows them")
        console.print(f"{name} is revoked")

    with_database(work)
