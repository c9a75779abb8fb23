"""Models and migrations agree, and every migration can be taken back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command

from app.cli.migrate import alembic_config
from app.embedded import Postgres


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data_dir: Path = tmp_path_factory.mktemp("migrations")
    postgres = Postgres(data_dir)
    yield postgres.start()
    postgres.stop(immediately=True)


def test_migrations_lead_to_the_models_and_back(database_url: str) -> None:
    config = alembic_config(database_url)
    command.upgrade(config, "head")
    command.check(config)
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    command.check(config)
