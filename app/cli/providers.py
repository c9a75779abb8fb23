"""`ringback providers`: the telephony systems that dial."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.common import audit_change, console, fail, failures_explained, with_database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db import Database
    from app.options import Options
    from app.security import Vault
    from app.telephony.base import TelephonyProvider
    from app.telephony_providers import Limits, ProviderConfig

app = typer.Typer(help="Telephony providers: what dials.", no_args_is_help=True)
telephony = typer.Typer(hidden=True)  # `ringback providers check` is what `providers check` was called before

_SECONDS = {"second": 1.0, "minute": 60.0}

Name = Annotated[str, typer.Argument(help="The provider's name", show_default=False)]
Given = Annotated[
    list[str],
    typer.Option("-o", "--option", help="NAME=VALUE, or NAME=@FILE to read the value from a file", show_default=False),
]
AtOnce = Annotated[
    int | None, typer.Option("--calls-at-once", min=0, help="Calls up at once; 0: no limit", show_default=False)
]
PerUnit = Annotated[
    str | None,
    typer.Option("--pace", help="Calls dialed at most: `2/second`, `200/minute`; 0: no limit", show_default=False),
]


@app.command()
@failures_explained
def add(
    name: Name,
    kind: Annotated[str, typer.Option(help="The adapter: `ringback providers kinds` lists them", show_default=False)],
    option: Given = [],  # noqa: B006
    calls_at_once: AtOnce = None,
    pace: PerUnit = None,
) -> None:
    """Add a provider. Secret options that are not given are asked for."""
    from app import providers, telephony_providers
    from app.settings import get_settings

    values = _read_values(option)
    options = _options_of(kind)
    for secret in _secret_names(options):
        if secret not in values and options.model_fields[secret].is_required() and sys.stdin.isatty():
            values[secret] = typer.prompt(secret, hide_input=True)
    _check_values(name, kind, values)
    limits = _read_limits(calls_at_once, pace)

    async def added(session: "AsyncSession") -> str:
        plain, secret = _divided(options, values)
        vault = providers.vault(get_settings())
        await telephony_providers.add(session, name, kind, options=plain, secrets=secret, vault=vault)
        await telephony_providers.limit(session, name, limits)
        return (
            f"Added {name}. See whether it is ready for calls: ringback providers check {name}\n"
            f"Let it dial: ringback providers default {name}, or for one number: ringback dids add NUMBER --provider "
            f"{name}"
        )

    _change(name, added)


@app.command("set")
@failures_explained
def set_(name: Name, option: Given = [], calls_at_once: AtOnce = None, pace: PerUnit = None) -> None:  # noqa: B006
    """Change options or limits of a provider. `NAME=` removes an option. Workers follow within seconds."""
    from app import providers, telephony_providers
    from app.settings import get_settings

    changed = _read_values(option)
    limits = _read_limits(calls_at_once, pace)
    vault = providers.vault(get_settings())

    async def work(session: "AsyncSession") -> str:
        if changed:
            config = await telephony_providers.get_config(session, name)
            plain, secret = _merged(config, changed, vault)
            await telephony_providers.change(session, name, options=plain, secrets=secret, vault=vault)
        await telephony_providers.limit(session, name, limits)
        return f"Changed {name}. Workers follow within seconds"

    _change(name, work)


@app.command("list")
@failures_explained
def list_() -> None:
    """List all providers."""
    from app import providers, telephony_providers
    from app.settings import get_settings

    async def work(db: "Database") -> None:
        async with db.transaction() as session:
            configs = await telephony_providers.list_configs(session)
            calls = {config.name: await telephony_providers.count_open(session, config.name) for config in configs}
        table = Table(box=None)
        for heading in ("name", "kind", "default", "new calls", "open calls", "at once", "pace", "options"):
            table.add_column(heading, overflow="fold")
        for config in configs:
            options = ", ".join(f"{option}={value}" for option, value in sorted(config.options.items()))
            if config.kind is None:
                options = "(environment variables)"
            table.add_row(
                config.name,
                config.kind or providers.environment_kind(get_settings()),
                "yes" if config.is_default else "",
                "drained" if config.is_drained else "yes",
                str(calls[config.name]),
                str(config.calls_at_once or ""),
                str(config.pace or ""),
                options,
            )
        console.print(table)

    with_database(work)


@app.command()
@failures_explained
def kinds() -> None:
    """List the kinds of provider, and the options of each."""
    from app import providers

    for kind, adapter in sorted(providers.telephony_kinds().items()):
        console.print(kind, style="bold")
        for name, field in adapter.options.model_fields.items():
            mark = "required" if field.is_required() else ""
            secret = "secret" if name in _secret_names(adapter.options) else ""
            about = ", ".join(filter(None, (mark, secret)))
            console.print(f"  {name:<18} {field.description}{f' ({about})' if about else ''}", soft_wrap=True)


@app.command()
@failures_explained
def default(name: Name) -> None:
    """Let this provider dial the calls whose DID has none of its own."""
    from app import telephony_providers

    async def work(session: "AsyncSession") -> str:
        await telephony_providers.set_default(session, name)
        return f"{name} dials new calls from now on. Calls that exist stay where they are"

    _change(name, work)


@app.command()
@failures_explained
def drain(name: Name) -> None:
    """Give a provider no new calls. It finishes those that it has."""
    from app import telephony_providers

    async def work(session: "AsyncSession") -> str:
        left = await telephony_providers.drain(session, name)
        return f"{name} takes no new calls. It still has {left}. `ringback providers resume {name}` takes this back"

    _change(name, work)


@app.command()
@failures_explained
def resume(name: Name) -> None:
    """Give a drained provider new calls again."""
    from app import telephony_providers

    async def work(session: "AsyncSession") -> str:
        await telephony_providers.resume(session, name)
        return f"{name} takes new calls"

    _change(name, work)


@app.command()
@failures_explained
def remove(name: Name) -> None:
    """Remove a provider that has no calls any more. Their history stays."""
    from app import telephony_providers

    async def work(session: "AsyncSession") -> str:
        await telephony_providers.remove(session, name)
        return f"Removed {name}"

    _change(name, work)


@app.command()
@telephony.command()
@failures_explained
def check(
    name: Annotated[str | None, typer.Argument(help="Only this provider", show_default="all")] = None,
) -> None:
    """Examine everything that a call needs, in order, and say how to fix what is missing. Nobody is called."""
    from app import telephony_providers
    from app.provider_directory import ProviderDirectory
    from app.settings import get_settings
    from app.telephony.base import ProviderError

    async def work(db: "Database") -> bool:
        directory, in_order = ProviderDirectory(db, get_settings()), True
        try:
            async with db.transaction() as session:
                configs = await telephony_providers.list_configs(session)
            for config in configs:
                if name not in (None, config.name):
                    continue
                console.print(f"{config.name}:")
                try:
                    async with directory.use(config.name) as adapter:
                        in_order = await _print_findings(adapter) and in_order
                except ProviderError as error:
                    in_order = False
                    console.print(Text("  MISSING ", "red") + Text(str(error)), soft_wrap=True)
        finally:
            await directory.aclose()
        if name is not None and name not in [config.name for config in configs]:
            fail(f"There is no provider {name}. `ringback providers list` shows them")
        return in_order

    if not with_database(work):
        raise typer.Exit(1)
    console.print("Ready for a call: ringback call CUSTOMER AGENT --user EMAIL")


async def _print_findings(adapter: "TelephonyProvider") -> bool:
    """Print what the check finds. Returns whether everything is in order."""
    in_order = True
    async for finding in adapter.check():
        in_order = in_order and finding.ok
        mark = Text("  ok      ", "green") if finding.ok else Text("  MISSING ", "red")
        console.print(mark + Text(f"{finding.what:<14} {finding.seen}"), soft_wrap=True)
        if not finding.ok:
            console.print(f"          {'':<14} {finding.fix}", soft_wrap=True)
    return in_order


def _change(name: str, work: "Callable[[AsyncSession], Awaitable[str]]") -> None:
    from app.audit import AuditAction

    async def run(db: "Database") -> str:
        async with db.transaction() as session:
            said = await work(session)
            await audit_change(session, AuditAction.CHANGED_PROVIDER, subject=name, detail=said.partition("\n")[0])
            return said

    console.print(with_database(run), soft_wrap=True)


def _options_of(kind: str) -> "type[Options]":
    from app import providers

    kinds = providers.telephony_kinds()
    if kind not in kinds:
        fail(f"There is no kind {kind}. Choose one of: {', '.join(sorted(kinds))}")
    return kinds[kind].options


def _secret_names(options: "type[Options]") -> set[str]:
    return {name for name, field in options.model_fields.items() if "SecretStr" in str(field.annotation)}


def _merged(config: "ProviderConfig", changed: dict[str, str], vault: "Vault") -> tuple[dict[str, str], dict[str, str]]:
    """The provider's options with these changes: those that may be shown, and the secret ones. Exits with what is
    wrong."""
    if config.kind is None:
        return {}, {}  # which the domain refuses
    options = _options_of(config.kind)
    # Secrets that cannot be read any more can be set anew, all of them at once.
    known = {} if changed.keys() >= _secret_names(options) else config.values(vault)
    merged = {**config.options, **known, **changed}
    values = {option: value for option, value in merged.items() if value != ""}
    _check_values(config.name, config.kind, values)
    return _divided(options, values)


def _divided(options: "type[Options]", values: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The options that may be shown, and the secret ones."""
    secret = _secret_names(options)
    return (
        {name: value for name, value in values.items() if name not in secret},
        {name: value for name, value in values.items() if name in secret},
    )


def _read_values(given: list[str]) -> dict[str, str]:
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"-o {name}: write NAME=VALUE, or NAME=@FILE")
        values[name.strip().lower()] = Path(value[1:]).read_text().strip() if value.startswith("@") else value
    return values


def _check_values(name: str, kind: str, values: dict[str, str]) -> None:
    """Exits with what is wrong."""
    from app import providers
    from app.settings import get_settings

    known = _options_of(kind).model_fields
    unknown = [option for option in values if option not in known]
    if unknown:
        fail(f"{kind} has no option {', '.join(unknown)}. It has: {', '.join(known)}")
    providers.telephony_from_values(get_settings(), name, kind, values)  # it connects when it is first used


def _read_limits(calls_at_once: int | None, pace: str | None) -> "Limits":
    from app.telephony_providers import Limits, Pace

    if pace is None:
        return Limits(calls_at_once)
    calls, _, unit = pace.partition("/")
    if pace == "0":
        return Limits(calls_at_once, Pace(0, 1.0))
    if not calls.isdigit() or int(calls) == 0 or unit not in _SECONDS:
        fail("--pace: write it as 2/second or 200/minute; 0 removes it")
    return Limits(calls_at_once, Pace(int(calls), _SECONDS[unit]))
