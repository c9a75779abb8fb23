"""The machine's own Chromium. In CI a missing one is installed. Elsewhere the tests that need it are skipped."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# A closed network refuses Chromium's background requests, which slows its start.
_OPTIONS = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def find_chromium() -> str:
    """The path of Chromium. In CI, where a skipped test is a failure, this installs Debian's package."""
    if not any(map(shutil.which, _NAMES)):
        if not os.environ.get("CI"):
            pytest.skip("needs Chromium: install your system's package `chromium`")
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", "chromium"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    return next(path for name in _NAMES if (path := shutil.which(name)))


@asynccontextmanager
async def open_page(problems: list[str], requested: list[str]) -> AsyncIterator[Page]:
    """A page in a new browser. Adds what its console reports, and the URLs that it requests, to the lists."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root with a sandbox
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=[*_OPTIONS, *sandbox])
        try:
            page = await browser.new_page()
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: requested.append(request.url))
            yield page
        finally:
            await browser.close()
