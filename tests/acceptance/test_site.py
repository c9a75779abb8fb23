"""The built pages in a real browser, opened as files: no server and no network."""

import os
import re
import subprocess
import sys
from pathlib import Path

from playwright.async_api import expect

from tests.acceptance.browser import open_page

ROOT = Path(__file__).parents[2]


async def test_the_search_finds_a_setting_in_pages_opened_as_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    problems: list[str] = []
    requested: list[str] = []
    async with open_page(problems, requested) as page:
        await page.goto((tmp_path / "asterisk.html").as_uri())
        await page.get_by_role("textbox", name="Search").click()
        await page.keyboard.type("retention days", delay=20)
        await page.locator(".md-search-result__link", has_text="Settings").first.click()
        await expect(page).to_have_url(re.compile("settings.html"))
    assert problems == []
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
