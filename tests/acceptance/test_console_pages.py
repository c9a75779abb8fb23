"""Every page of the console in a real browser: accessible, within the width of its window, and as pictures."""

import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from playwright.async_api import Page, Route, expect

from app.console import pages
from tests.acceptance import npm
from tests.acceptance.console_data import BUSY, HINDI, INTERESTED, LIVE, write_day
from tests.acceptance.console_site import OPERATOR, SAMPLE_USER, Site

_AXE = npm.Package(
    "axe-core",
    "4.14.1",
    "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
)
_WIDTHS = {1280: 800, 390: 844}
_RUN_AXE = """async (options) => {
  const found = await axe.run(document, { resultTypes: ["violations"], ...options });
  return found.violations
    .filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => `${one.id}: ` + one.nodes.map((node) => `${node.target} ${node.failureSummary}`).join(" | "));
}"""
_ONLY_COLOURS = {"runOnly": ["color-contrast"]}
"""A theme changes nothing else."""

_PAGES = {
    SAMPLE_USER: [
        "/calls",
        "/calls?status=live&q=nothing",
        "/calls/new",
        f"/calls/{HINDI}",
        f"/calls/{LIVE}",
        f"/calls/{BUSY}",
        "/numbers",
        "/deliveries",
        "/account",
    ],
    OPERATOR: ["/calls?whose=all", f"/calls/{BUSY}", "/numbers", "/deliveries?whose=all", "/installation"],
    None: ["/login"],
}
_PICTURES = "RINGBACK_SCREENSHOTS"
_ASSETS = Path(__file__).parents[2] / "docs/assets"
_MOST_BYTES = 250_000


async def test_every_page_is_accessible_and_no_wider_than_its_window(console: Site) -> None:
    await write_day(console)
    axe = (npm.fetch(_AXE) / "axe.min.js").read_text()
    faults: list[str] = []
    for email, paths in _PAGES.items():
        async with console.tab(email) as (page, tab):
            tab.expected = [r"status of (400|404|422)"]  # the faulty forms, and the page that is not there
            for path in paths:
                await page.goto(path)
                faults += [f"{path} {fault}" for fault in await faults_of(page, axe)]
            if email == SAMPLE_USER:
                await page.goto("/calls/new")
                await page.get_by_label("Agent, rung first").fill("1")
                await page.get_by_label("Customer", exact=True).fill("1")
                await page.get_by_role("button", name="Call", exact=True).click()
                await expect(page.get_by_role("alert").first).to_be_visible()
                faults += [f"faulty form {fault}" for fault in await faults_of(page, axe)]
                await page.goto("/calls/nothing")
                faults += [f"nothing here {fault}" for fault in await faults_of(page, axe)]
            if email is None:
                await page.goto("/login")
                await page.get_by_label("E-mail").fill(SAMPLE_USER)
                await page.get_by_label("Password").fill("wrong")
                await page.get_by_role("button", name="Sign in").click()
                await expect(page.get_by_role("alert")).to_be_visible()
                faults += [f"wrong password {fault}" for fault in await faults_of(page, axe)]
                # This server has users, so what a new one shows is put in its place.
                first = pages.render("first_run.html", viewer=None, path="/", now=datetime.now(UTC), theme="", flash="")
                await page.route("**/first", partial(answer_with, first))
                await page.goto("/first")
                faults += [f"first run {fault}" for fault in await faults_of(page, axe)]
    assert faults == [], "\n".join(faults)


async def answer_with(html: str, route: Route) -> None:
    await route.fulfill(body=html, content_type="text/html")


async def faults_of(page: Page, axe: str) -> list[str]:
    """What is wrong in one page, in both themes and widths."""
    if await page.locator("call-player").count():
        await expect(page.locator("call-player .pp")).to_be_visible()
    await page.evaluate(axe)
    faults: list[str] = []
    for width, height in _WIDTHS.items():
        await page.set_viewport_size({"width": width, "height": height})
        options: dict[str, Any] = {}
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            faults += [f"{width} {scheme} {fault}" for fault in await page.evaluate(_RUN_AXE, options)]
            options = _ONLY_COLOURS
        wide = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if wide[0] != wide[1]:
            faults.append(f"{width} scrolls sideways: {wide[0]} of {wide[1]} pixels")
    return faults


async def test_pictures(console: Site, tmp_path: Path) -> None:
    """Those of the documentation. They are written there only with `RINGBACK_SCREENSHOTS=1`."""
    await write_day(console)
    folder = _ASSETS if os.environ.get(_PICTURES) else tmp_path
    light, phone = {"color_scheme": "light"}, {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
    async with console.tab(SAMPLE_USER, device_scale_factor=1.25, **light) as (page, _):
        await page.goto("/calls")
        await expect(page.locator(".livedot")).to_be_visible()
        await take(page, folder / "console-calls.png")
        await play(page, INTERESTED)
        await take(page, folder / "console-call.png")
        await page.goto("/numbers")
        await take(page, folder / "console-numbers.png")
        await page.goto("/deliveries")
        await take(page, folder / "console-callbacks.png")
        await page.emulate_media(color_scheme="dark")
        await page.goto("/calls/new?customer=919820012345&agent=918888888888")
        await take(page, folder / "console-place-dark.png")
        await play(page, HINDI)
        await take(page, folder / "console-call-hindi-dark.png")
    async with console.tab(OPERATOR, device_scale_factor=1.25, **light) as (page, _):
        await page.goto("/installation")
        while await page.get_by_text("Being measured").count():
            await page.reload()
        await take(page, folder / "console-installation.png")
    async with console.tab(SAMPLE_USER, **light, **phone) as (page, _):
        await page.goto("/calls")
        await expect(page.locator(".livedot")).to_be_visible()
        await take(page, folder / "console-phone.png")


async def play(page: Page, call_id: str) -> None:
    """Play the second turn of a call, and pause."""
    await page.goto(f"/calls/{call_id}")
    await expect(page.locator("call-player .pp")).to_be_visible()
    await page.locator(".turn button").nth(1).click()
    await page.get_by_role("button", name="Pause").click()
    await page.evaluate("document.querySelector('audio').currentTime = 5.4")
    await expect(page.locator(".time b")).to_have_text("0:05")
    await expect(page.locator(".turn [aria-current]")).to_have_count(1)


async def take(page: Page, path: Path) -> None:
    await page.evaluate("document.fonts.ready.then(() => true)")
    await page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size < _MOST_BYTES
