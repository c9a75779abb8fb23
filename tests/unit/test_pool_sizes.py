"""docs/production.md says how many connections each process opens. Whoever sizes a PostgreSQL relies on it."""

import re
from pathlib import Path

from app.db import POOL_SIZE
from worker import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/production.md").read_text()


def stated(process: str) -> int:
    found = re.search(rf"^\| {process} \| (\d+) \|$", PAGE, re.MULTILINE)
    assert found, process
    return int(found[1])


def test_the_page_says_how_many_connections_each_process_opens() -> None:
    assert stated("API") == 2 * POOL_SIZE
    assert stated("worker of any kind") == 2 * main.POOL_SIZE
    sizes = re.findall(r"pool_size=(\d+)", (ROOT / "app/cli/common.py").read_text())
    assert sizes
    assert {stated("a command")} == {2 * int(size) for size in sizes}


def test_its_formula_and_its_example_follow_from_them() -> None:
    api, worker, more = stated("API"), stated("worker of any kind"), 10
    assert f"{api} × APIs + {worker} × workers + {more}" in PAGE
    assert f"Three APIs and eight workers need {3 * api + 8 * worker + more}" in PAGE
    assert api + 3 * worker + more <= 100, "PostgreSQL's default is enough for one API and three workers"
