"""The API reference at `/docs`, in a real browser, under its content security policy."""

import json

import httpx
from playwright.async_api import expect

from tests.acceptance.browser import open_page
from tests.acceptance.conftest import Instance


async def test_the_reference_authorizes_and_sends_requests(instance: Instance, token: str) -> None:
    problems: list[str] = []
    requested: list[str] = []
    async with open_page(problems, requested) as page:
        await page.goto(f"{instance.base_url}/docs")
        await page.get_by_role("button", name="Authorize").click()
        await page.get_by_label("auth-bearer-value").fill(token)
        await page.get_by_role("button", name="Apply credentials").click()
        await page.get_by_role("button", name="Close").click()
        operation = page.locator(".opblock").filter(has_text="/api/developer/calls/click2call")
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Try it out").click()
        order = {"customer_number": "919999999999", "agent_number": "918888888888"}
        await operation.locator("textarea").fill(json.dumps(order))
        await operation.get_by_role("button", name="Execute").click()
        await expect(operation.locator(".live-responses-table")).to_contain_text('"status": "queued"')
    assert problems == []
    assert f"{instance.base_url}/api/developer/calls/click2call" in requested
    assert [url for url in requested if not url.startswith((instance.base_url, "data:", "blob:"))] == []


async def test_the_policy_allows_nothing_inline_and_no_other_origin(instance: Instance) -> None:
    async with httpx.AsyncClient(base_url=instance.base_url) as client:
        page = await client.get("/docs")
        script = await client.get("/docs/swagger-ui-bundle.js")
        assert (await client.head("/docs")).status_code == 200
        assert (await client.get("/docs/nothing.js")).json()["status_code"] == 404
        assert (await client.get("/redoc")).status_code == 404
    assert "://" not in page.text
    for answer in (page, script):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
