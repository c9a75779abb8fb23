"""Which outcomes and fields each user wants to know of a call. None stored: the default set."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import Call
from app.options import SettingsError
from app.speech_models import OutcomeSetRow
from app.transcription.outcome_set import (
    DEFAULT,
    LONGEST,
    MOST_EXAMPLES,
    MOST_FIELDS,
    MOST_OUTCOMES,
    OutcomeSet,
    OwnField,
    OwnOutcome,
)


class _Outcome(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=LONGEST)
    description: str = Field("", max_length=LONGEST)
    examples: list[str] = Field(default_factory=list, max_length=MOST_EXAMPLES)
    default: bool = False


class _Field(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=LONGEST)
    description: str = Field("", max_length=LONGEST)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    outcome: list[_Outcome] = Field(default_factory=list, max_length=MOST_OUTCOMES)
    field: list[_Field] = Field(default_factory=list, max_length=MOST_FIELDS)


def parse(text: str, *, detailed: bool = False) -> OutcomeSet:
    """A set from the text of a TOML file, with tables `[[outcome]]` and `[[field]]`. Raises `SettingsError`."""
    try:
        read = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"This is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for names in ([one.name for one in read.outcome], [one.name for one in read.field]):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SettingsError(f"{twice!r} is there twice")
    if sum(one.default for one in read.outcome) > 1:
        raise SettingsError("Only one outcome can be the default")
    if not read.outcome and not read.field:
        raise SettingsError("There is no [[outcome]] and no [[field]] in it")
    return OutcomeSet(
        detailed=detailed,
        outcomes=tuple(_outcome(one.model_dump()) for one in read.outcome),
        fields=tuple(OwnField(one.name, one.description) for one in read.field),
    )


def _outcome(stored: Mapping[str, Any]) -> OwnOutcome:
    return OwnOutcome(**{**stored, "examples": tuple(stored["examples"])})


async def save(session: AsyncSession, user_id: str, chosen: OutcomeSet) -> None:
    """Replace the user's set."""
    values = {
        "detailed": chosen.detailed,
        "outcomes": [asdict(one) for one in chosen.outcomes],
        "fields": [asdict(one) for one in chosen.fields],
    }
    adding = insert(OutcomeSetRow).values(user_id=user_id, **values)
    await session.execute(adding.on_conflict_do_update(index_elements=[OutcomeSetRow.user_id], set_=values))


async def clear(session: AsyncSession, user_id: str) -> None:
    """Back to the default set."""
    await session.execute(delete(OutcomeSetRow).where(OutcomeSetRow.user_id == user_id))


async def get(session: AsyncSession, user_id: str) -> OutcomeSet:
    """The user's set, or the default one."""
    return _read(await session.get(OutcomeSetRow, user_id))


async def get_for_call(session: AsyncSession, call_id: str) -> OutcomeSet:
    """The set of the call's user."""
    query = select(OutcomeSetRow).join(Call, Call.user_id == OutcomeSetRow.user_id).where(Call.id == call_id)
    return _read((await session.scalars(query)).one_or_none())


def _read(row: OutcomeSetRow | None) -> OutcomeSet:
    if row is None:
        return DEFAULT
    return OutcomeSet(
        detailed=row.detailed,
        outcomes=tuple(_outcome(stored) for stored in row.outcomes),
        fields=tuple(OwnField(**stored) for stored in row.fields),
    )
