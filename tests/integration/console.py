"""A signed-in browser without a browser: cookies, and the token of each form."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from app.models import User
from tests.conftest import PASSWORD, client_of

SAME_ORIGIN = {"Origin": "http://ringback", "Sec-Fetch-Site": "same-origin"}


class Browser:
    """Follows no redirect by itself, so that a test sees each answer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def sign_in(self, user: User, password: str = PASSWORD, **more: str) -> httpx.Response:
        form = {"email": user.email, "password": password, **more}
        return await self.client.post("/login", data=form, headers=SAME_ORIGIN)

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path)

    async def read(self, path: str) -> str:
        """A page that must be there."""
        answer = await self.client.get(path)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.text

    async def csrf(self) -> str:
        (token, *_) = re.findall(r'name="csrf" value="([0-9a-f]{64})"', await self.read("/account"))
        return str(token)

    async def post(self, path: str, **form: str) -> httpx.Response:
        """A form of our own page."""
        return await self.client.post(path, data={"csrf": await self.csrf(), **form}, headers=SAME_ORIGIN)


@asynccontextmanager
async def browser_of(app: FastAPI, user: User) -> AsyncIterator[Browser]:
    async with client_of(app) as client:
        browser = Browser(client)
        answer = await browser.sign_in(user)
        assert (answer.status_code, answer.headers["location"]) == (303, "/calls")
        yield browser
