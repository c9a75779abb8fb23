"""Numbers that must not be called: by nobody, or not by one user's calls.

The list is asked when a call is created and again right before it is dialed. It concerns customers. Agents are called
by the users who employ them.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import Any

import structlog
from sqlalchemy import delete, exists, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.numbers import NumberRules, PhoneNumber
from app.rule_models import DoNotCall

log = structlog.get_logger()

_CHUNK = 20_000
_SHOWN_FAULTS = 10


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What became of an import."""

    added: int
    known: int
    """Numbers that were on the list already, or twice in the file."""
    faults: list[str]
    """The first lines that hold no number."""
    fault_count: int


async def is_listed(session: AsyncSession, user_id: str, customer_number: str) -> bool:
    """Whether the user's calls must not reach this number, given as E.164 digits."""
    listed = exists().where(
        DoNotCall.number == customer_number, or_(DoNotCall.user_id.is_(None), DoNotCall.user_id == user_id)
    )
    return bool(await session.scalar(select(listed)))


async def add(session: AsyncSession, user_id: str | None, numbers: Iterable[PhoneNumber]) -> int:
    """Add numbers to the list of a user, or with None to that of the installation. Returns how many are new."""
    values = [{"user_id": user_id, "number": number.digits} for number in numbers]
    if not values:
        return 0
    added = await session.scalars(insert(DoNotCall).on_conflict_do_nothing().returning(DoNotCall.id), values)
    count = len(added.all())
    log.info("do_not_call_added", user_id=user_id, numbers=count)
    return count


async def remove(session: AsyncSession, user_id: str | None, number: PhoneNumber) -> bool:
    """Remove a number from the list of a user, or of the installation. False if it is not on it."""
    mine = DoNotCall.user_id.is_(None) if user_id is None else DoNotCall.user_id == user_id
    removing = delete(DoNotCall).where(mine, DoNotCall.number == number.digits).returning(DoNotCall.id)
    removed = await session.scalar(removing) is not None
    if removed:
        log.info("do_not_call_removed", user_id=user_id, number=number.digits)
    return removed


async def list_numbers(session: AsyncSession, user_id: str | None, *, limit: int, offset: int = 0) -> list[str]:
    """Numbers on the list of a user, or of the installation, in the order in which they were added."""
    mine = DoNotCall.user_id.is_(None) if user_id is None else DoNotCall.user_id == user_id
    query = select(DoNotCall.number).where(mine).order_by(DoNotCall.id).limit(limit).offset(offset)
    return list(await session.scalars(query))


async def count(session: AsyncSession, user_id: str | None) -> int:
    """How many numbers are on the list of a user, or of the installation."""
    mine = DoNotCall.user_id.is_(None) if user_id is None else DoNotCall.user_id == user_id
    return await session.scalar(select(func.count()).where(mine)) or 0


async def import_lines(db: Database, lines: Iterable[str], user_id: str | None, rules: NumberRules) -> ImportResult:
    """Add a number of each line: the first column of a CSV. Reads numbers on all CPUs, and writes them with COPY. All
    of them are added, or if this is interrupted none."""
    rows, faults, fault_count = 0, list[str](), 0
    async with db.transaction() as session:
        await session.execute(text("CREATE TEMPORARY TABLE imported (number text) ON COMMIT DROP"))
        connection: Any = await (await session.connection()).get_raw_connection()
        # A forked process would share the connections of this one.
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            for numbers, wrong in pool.map(partial(_read_chunk, rules), _chunks(enumerate(lines, 1))):
                rows += len(numbers)
                fault_count += len(wrong)
                faults += wrong[: _SHOWN_FAULTS - len(faults)]
                await connection.driver_connection.copy_records_to_table(
                    "imported", records=[(number,) for number in numbers], columns=["number"]
                )
        adding = text("""
            INSERT INTO do_not_call (number, user_id) SELECT number, CAST(:user_id AS text) FROM imported
            ON CONFLICT DO NOTHING
        """)
        added: Any = await session.execute(adding, {"user_id": user_id})
    log.info("do_not_call_imported", user_id=user_id, added=added.rowcount, faults=fault_count)
    return ImportResult(added.rowcount, rows - added.rowcount, faults, fault_count)


def _chunks(lines: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while chunk := list(islice(lines, _CHUNK)):
        yield chunk


def _read_chunk(rules: NumberRules, lines: list[tuple[int, str]]) -> tuple[list[str], list[str]]:
    """The numbers of these lines, and the lines that hold none."""
    numbers, faults = [], []
    for position, line in lines:
        written = line.strip().split(",")[0].split(";")[0].strip(' \t"\ufeff')
        if not written:
            continue
        try:
            numbers.append(rules.read(written).digits)
        except ValueError:
            if position > 1:  # the first line may be the header
                faults.append(f"line {position}: {written[:40]}")
    return numbers, faults
