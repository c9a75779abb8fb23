"""`ringback limits`: what may be ordered, and how much of it is used."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from app.cli.common import audit_change, console, fail, failures_explained, with_database
from app.cli.users import OnOff, get_user

if TYPE_CHECKING:
    from app.call_rules import CallRules
    from app.db import Database

app = typer.Typer(help="Limits, destinations and calling hours.", no_args_is_help=True)

_NONE = "none"

OfUser = Annotated[str | None, typer.Option("--user", help="Of this user, by e-mail", show_default="the installation")]


def _option(name: str, help_text: str) -> Any:
    return typer.Option(name, help=f"{help_text}; `none` removes the rule", show_default=False)


@app.command()
@failures_explained
def show(user: OfUser = None) -> None:
    """Show the rules, and how much of each limit is used now."""
    from app import call_rules, usage
    from app.settings import get_settings

    async def work(db: "Database") -> None:
        zone = get_settings().zone
        async with db.transaction() as session:
            owner = None if user is None else await get_user(session, user)
            owner_id = None if owner is None else owner.id
            applied = await call_rules.get_applied(session, owner_id, zone)
            used = await usage.measure(session, owner_id, zone)
        rules = applied.installation if owner is None else applied.user
        table = Table("rule", "limit", "used", box=None)
        for name in call_rules.LIMITS:
            table.add_row(name.replace("_", " "), _shown(getattr(rules.limits, name)), str(getattr(used, name)))
        for name, value in _other_rules(rules, home_country=get_settings().home_country, of_user=owner is not None):
            table.add_row(name, value, "")
        console.print(table)
        if owner is not None:
            console.print("The rules of the installation apply besides: ringback limits show")

    with_database(work)


@app.command("set")
@failures_explained
def set_(
    user: OfUser = None,
    calls_at_once: Annotated[str | None, _option("--calls-at-once", "Calls that are queued or up")] = None,
    calls_per_minute: Annotated[str | None, _option("--calls-per-minute", "Calls ordered in a minute")] = None,
    calls_per_day: Annotated[str | None, _option("--calls-per-day", "Calls ordered in a day")] = None,
    talk_minutes_per_day: Annotated[str | None, _option("--talk-minutes-per-day", "Minutes of talk in a day")] = None,
    talk_minutes_per_month: Annotated[
        str | None, _option("--talk-minutes-per-month", "Minutes of talk in a month")
    ] = None,
    destinations: Annotated[str | None, _option("--destinations", "Countries and prefixes: `IN, GB, +97150`")] = None,
    hours: Annotated[str | None, _option("--hours", "When calls are made: `Mon-Sat 09:00-21:00`")] = None,
    record: Annotated[OnOff | None, typer.Option(help="`off`: no call is recorded", show_default=False)] = None,
) -> None:
    """Change rules of the installation, or of one user. Both apply, so a user's can only be narrower."""
    from app import call_rules
    from app.audit import AuditAction
    from app.settings import get_settings

    counts = {
        "calls_at_once": calls_at_once,
        "calls_per_minute": calls_per_minute,
        "calls_per_day": calls_per_day,
        "talk_minutes_per_day": talk_minutes_per_day,
        "talk_minutes_per_month": talk_minutes_per_month,
    }
    changes: dict[str, Any] = {name: _read_count(name, text) for name, text in counts.items() if text is not None}
    for name, text in (("destinations", destinations), ("hours", hours)):
        if text is not None:
            changes[name] = None if text == _NONE else text
    if record is not None:
        changes["record"] = record is OnOff.ON
    if not changes:
        fail("Nothing to change. `ringback limits set --help` lists the rules")

    async def work(db: "Database") -> str:
        async with db.transaction() as session:
            owner = None if user is None else await get_user(session, user)
            await call_rules.change(session, owner, changes, get_settings().zone)
            await audit_change(
                session,
                AuditAction.CHANGED_RULES,
                subject="the installation" if owner is None else owner.email,
                owner=None if owner is None else owner.id,
                detail=", ".join(f"{name}: {'none' if value is None else value}" for name, value in changes.items()),
            )
        return "the installation" if owner is None else owner.email

    console.print(f"Changed the rules of {with_database(work)}. They apply within a second", soft_wrap=True)


def _read_count(name: str, text: str) -> int | None:
    if text == _NONE:
        return None
    if not text.isascii() or not text.isdigit() or int(text) > 10**9:
        fail(f"--{name.replace('_', '-')}: must be a whole number, or `none`")
    return int(text)


def _shown(limit: int | None) -> str:
    return "no limit" if limit is None else str(limit)


def _other_rules(rules: "CallRules", *, home_country: str, of_user: bool) -> list[tuple[str, str]]:
    default = "as the installation's" if of_user else f"{home_country}; with a simulator, everywhere"
    return [
        ("destinations", default if rules.destinations is None else ", ".join(rules.destinations) or "none"),
        ("calling hours", "always" if rules.hours is None else str(rules.hours)),
        ("recording", "on" if rules.record else "off"),
    ]
