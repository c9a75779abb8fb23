"""Migrations, run from code: without an alembic.ini, and with the server's settings."""

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError

from app import providers
from app.cli.common import cause_of, complain, console, fail
from app.db import is_unreachable
from app.settings import get_settings

_PATIENCE_SECONDS = 30.0


def alembic_config(database_url: str, home_country: str = "IN") -> Config:
    """Alembic's configuration for this database. Numbers without a country code are of `home_country`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations"))
    config.attributes["url"] = database_url
    config.attributes["home_country"] = home_country
    return config


def get_head() -> str:
    """The revision that this release's tables have."""
    head = ScriptDirectory.from_config(alembic_config("")).get_current_head()
    assert head is not None
    return head


def migrate_to_head() -> None:
    """Upgrade. Waits half a minute for a database that is just starting."""
    # A migration rewrites stored numbers. What the rules of a wrong country make of them cannot be undone.
    providers.refuse_removed_variables()
    settings = get_settings()
    config = alembic_config(settings.database_url, settings.home_country)
    deadline, said_so = time.monotonic() + _PATIENCE_SECONDS, False
    while True:
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            if not isinstance(error.__cause__, ResolutionError):
                fail(str(error))
            console.print("The database is of a newer version, and works with the one before it. Nothing was changed")
            return
        except Exception as error:
            if not is_unreachable(error) or time.monotonic() > deadline:
                raise
            if not said_so:
                complain(f"Waiting up to {_PATIENCE_SECONDS:.0f} s for PostgreSQL ({cause_of(error)}) …")
                said_so = True
            time.sleep(1)
        else:
            console.print("The database is up to date")
            return
