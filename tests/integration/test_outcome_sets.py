"""`ringback outcomes`, and what is stored."""

from pathlib import Path

from app import outcome_sets
from app.db import Database
from app.models import User
from app.transcription.outcome_set import DEFAULT
from tests.integration.command import Ringback
from tests.unit.test_outcome_set import FILE


async def test_a_user_chooses_outcomes(ringback: Ringback, db: Database, user: User, tmp_path: Path) -> None:
    file = tmp_path / "outcomes.toml"
    file.write_text(FILE)
    assert "Wants exchange" in ringback("outcomes", "set", user.email, str(file)).check()
    async with db.transaction() as session:
        assert await outcome_sets.get(session, user.id) == outcome_sets.parse(FILE)
    shown = ringback("outcomes", "show", user.email).check()
    assert "Other (default)" in shown
    assert "callback time" in shown

    ringback("outcomes", "set", user.email, "--preset", "detailed").check()
    assert "Payment promised" in ringback("outcomes", "show", user.email).check()
    ringback("outcomes", "clear", user.email).check()
    async with db.transaction() as session:
        assert await outcome_sets.get(session, user.id) == DEFAULT
    file.write_text("nothing")
    assert "no TOML" in ringback("outcomes", "set", user.email, str(file)).refused()
