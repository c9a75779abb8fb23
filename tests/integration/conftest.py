"""A house to run a worker's tasks in."""

from pathlib import Path
from typing import Any

import pytest

from app import accounts, calls, providers
from app.calls import NewCall
from app.db import Database
from app.models import User
from app.settings import Settings
from app.storage import FolderStorage
from app.tasks import Hints
from app.transcription.outcome import RulesSummarizer
from tests.integration.house import SAID, Heard, House, MakeHouse, Scripted
from worker.context import Context


@pytest.fixture
def house_with(db: Database, hints: Hints, migrated: Settings, user: User, tmp_path: Path) -> MakeHouse:
    async def make(provider: Any = None, recognizer: Any = None, customer: str = "919999999999") -> House:
        async with db.transaction() as session:
            claims = await accounts.open_login(session, user, seconds=60)
        call_id = (await calls.create_call(db, hints, claims, NewCall(customer, "918888888888"))).id
        context = Context(
            settings=migrated,
            db=db,
            hints=hints,
            provider=provider or Scripted(),
            storage=FolderStorage(tmp_path),
            recognizer=recognizer or Heard(SAID),
            summarizer=RulesSummarizer(),
            outbound=providers.outbound(migrated),
            links=providers.links(migrated),
        )
        return House(context, call_id)

    return make
