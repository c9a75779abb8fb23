"""README and docs/ are true where a program can check it, and the site needs no network."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer

from app.cli import app
from tools import settings_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FRONT = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
# What a browser loads without a click. Links may lead elsewhere.
LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}


class Loaded(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(LOADING.get(tag, ""))
        if address:
            self.addresses.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. MkDocs is strict: a broken link or anchor fails the build, and so does a page outside the
    navigation."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", target],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_each_page_loads_only_files_of_the_site(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list(DOCS.glob("*.md")))
    for page in pages:
        text = page.read_text()
        loaded = Loaded()
        loaded.feed(text)
        assert loaded.addresses, page
        for address in loaded.addresses:
            assert not re.match(r"(\w+:)?//", address), f"{page.name} loads {address}"
            if page.name != "404.html":  # 404.html is served for any address, so its paths are absolute
                assert (page.parent / address.partition("?")[0].partition("#")[0]).exists(), f"{page.name}: {address}"
        assert 'class="mermaid"' not in text, "the theme loads Mermaid from a CDN"
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()), style


def test_the_search_works_without_a_server(site: Path) -> None:
    assert (site / "search/search_index.js").read_text().startswith("var __index = ")
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text()


def links() -> Iterator[tuple[str, str]]:
    for name in FRONT:
        for target in re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text()):
            if not target.startswith(("http://", "https://", "mailto:")):
                yield name, target


def test_links_of_the_front_pages(site: Path) -> None:
    for name, target in links():
        path, _, anchor = target.partition("#")
        assert (ROOT / path).exists(), f"{name}: {target}"
        if anchor:
            built = site / Path(path).relative_to("docs").with_suffix(".html")
            assert f'id="{anchor}"' in built.read_text(), f"{name}: {target}"


def test_the_tables_of_settings_are_the_settings() -> None:
    page = settings_table.PAGE.read_text()
    assert page == settings_table.fill(page), "run `.venv/bin/python -m tools.settings_table`"


def test_each_command_is_on_the_page_of_the_command_line() -> None:
    named = set(re.findall(r"`([a-z][a-z-]+(?: [a-z][a-z-]+)?)", (DOCS / "command-line.md").read_text()))
    for command in commands(typer.main.get_command(app), ()):
        assert any(name == command or name.startswith(f"{command} ") for name in named), command


def commands(command: object, path: tuple[str, ...]) -> Iterator[str]:
    for name, part in getattr(command, "commands", {}).items():
        if getattr(part, "commands", None):
            yield from commands(part, (*path, name))
        else:
            yield " ".join((*path, name))


@pytest.mark.parametrize("page", [*FRONT, *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))])
def test_the_commands_of_make_exist(page: str) -> None:
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared
    text = (ROOT / page).read_text()
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]+)", text, re.MULTILINE)) <= set(declared[1].split())


def test_the_paths_of_the_architecture_exist() -> None:
    rows = [line for line in (DOCS / "architecture.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    for row in rows:
        for name in row.split("|")[1].split("`")[1::2]:
            assert (ROOT / name).exists(), name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
