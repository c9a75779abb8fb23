"""The requests of `bench.growth`: what clients, systems that report calls, and people at the console ask for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from app import accounts
from app.db import Database
from bench.growth_fill import USERS

_PASSWORD = "a benchmark's password"
OPERATOR_NUMBER = 8
"""Which user is the operator. Signing them in ends their other logins."""
_EMAIL = f"{OPERATOR_NUMBER}@example.com"
_SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@dataclass(frozen=True)
class GrowthRequest:
    name: str
    path: str
    body: Mapping[str, object] | None = None
    expects: frozenset[int] = frozenset({200})

    async def send(self, client: httpx.AsyncClient, headers: Mapping[str, str], values: Mapping[str, str]) -> None:
        """Send it, with the values put into path and body. Raises `AssertionError` if it fails."""
        path = self.path.format(**values)
        if self.body is None:
            answer = await client.get(path, headers=headers if path.startswith("/api") else None)
        else:
            body = {
                key: value.format(**values) if isinstance(value, str) else value for key, value in self.body.items()
            }
            answer = await client.post(path, json=body, headers=headers)
        assert answer.status_code in self.expects, (path, answer.status_code, answer.text[:300])


def values_of(user: str, calls: int, n: int) -> dict[str, str]:
    """What a request of this user names: call number `n` of theirs from the middle, its customer, a page."""
    owner = int(user.removeprefix("USR_"), 16) - 1
    of_user = calls // USERS
    number = owner + USERS * (1 + (of_user // 2 + n) % (of_user - 1))
    return {
        "call": _call_id(number),
        "customer": f"9199{number * 7919 % 100_000_000:08d}",
        "new_customer": f"9198{(number + n) % 100_000_000:08d}",
        "last_page": str(max(1, of_user // 20)),
        "word": f"order{number}",
        "older": _call_id(number),
    }


def _call_id(number: int) -> str:
    return "call_" + hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()[:16]


@dataclass
class Operator:
    """The one who looks at everything, and orders the calls of the workers' measure."""

    headers: dict[str, str] = field(default_factory=dict)

    async def sign_in(self, client: httpx.AsyncClient, db: Database) -> None:
        """Make one user the operator, and sign them in at the console and the API."""
        async with db.transaction() as session:
            user = await accounts.find_user(session, _EMAIL)
            assert user is not None
            await accounts.set_password(session, user, _PASSWORD)
            await accounts.set_operator(session, user, is_operator=True)
        form = {"email": _EMAIL, "password": _PASSWORD}
        assert (await client.post("/login", data=form, headers=_SAME_ORIGIN)).status_code == 303
        login = await client.post("/api/developer/login", json=form)
        self.headers = {"Authorization": f"Bearer {login.json()['data']['access_token']}"}

    def order(self, client: httpx.Client) -> str:
        """Order a call. Returns its id."""
        body = {"customer_number": "+919876543210", "agent_number": "+918888888888"}
        answer = client.post("/api/developer/calls/click2call", json=body, headers=self.headers)
        return str(answer.json()["data"]["call_id"])

    def is_pending(self, client: httpx.Client, call_id: str) -> bool:
        answer = client.get(f"/api/developer/calls/{call_id}/transcript", headers=self.headers)
        return bool(answer.json()["data"]["transcript_status"] == "pending")


OPERATOR = Operator()

_ORDER = {"customer_number": "+{new_customer}", "agent_number": "+918888888888"}
_REPORT = {"customer_number": "{new_customer}", "status": "Answered", "call_date": "2026-03-05 10:00:00", "did": ""}

REQUESTS = (
    GrowthRequest("poll, developer", "/api/developer/calls/{call}/transcript"),
    GrowthRequest("poll, current", "/api/calls/{call}/transcript"),
    GrowthRequest("create", "/api/developer/calls/click2call", _ORDER),
    GrowthRequest("recent", "/api/calls/recent"),
    GrowthRequest("recent, the last page", "/api/calls/recent?page={last_page}"),
    GrowthRequest("recent, by status", "/api/calls/recent?status=NoAnswered"),
    GrowthRequest("recent, by call_type", "/api/calls/recent?call_type=C2C"),
    GrowthRequest("recent, by transcript_status", "/api/calls/recent?transcript_status=ready"),
    GrowthRequest("recent, by a customer", "/api/calls/recent?customer_number={customer}"),
    GrowthRequest("recent, by a part of a number", "/api/calls/recent?customer_number=54321"),
    GrowthRequest("recent, by agent", "/api/calls/recent?agent_number=918888888888"),
    GrowthRequest("recent, by DID", "/api/calls/recent?did=1140000001"),
    GrowthRequest("recent, of a day", "/api/calls/recent?date_from=2026-03-05&date_to=2026-03-05"),
    GrowthRequest("recent, since a day", "/api/calls/recent?date_from=2025-06-05"),
    GrowthRequest("report of a call", "/api/calls/call-log", {**_REPORT, "customer_crm_id": "{call}"}),
    GrowthRequest("report of a call of another system", "/api/calls/call-log", _REPORT),
    GrowthRequest("numbers", "/api/mobile-numbers"),
    GrowthRequest("utilization", "/api/mobile-numbers/channel-allocation/utilization"),
    GrowthRequest("console: calls", "/calls"),
    GrowthRequest("console: an older page", "/calls?before={older}"),
    GrowthRequest("console: all users", "/calls?whose=all"),
    GrowthRequest("console: all users, today", "/calls?whose=all&period=today"),
    GrowthRequest("console: all users, failed", "/calls?whose=all&status=failed"),
    GrowthRequest("console: all users, live", "/calls?whose=all&status=live"),
    GrowthRequest("console: all users, an outcome", "/calls?whose=all&outcome=Interested"),
    GrowthRequest("console: all users, an outcome nobody has", "/calls?whose=all&outcome=Nothing"),
    GrowthRequest("console: all users, a number", "/calls?whose=all&q={customer}"),
    GrowthRequest("console: all users, a part of a number", "/calls?whose=all&q=54321"),
    GrowthRequest("console: all users, a word of each", "/calls?whose=all&q=hello"),
    GrowthRequest("console: all users, a word of one", "/calls?whose=all&q={word}"),
    GrowthRequest("console: my calls, a word of each", "/calls?q=hello"),
    GrowthRequest("console: one call", "/calls/{call}"),
    GrowthRequest("console: numbers", "/numbers"),
    GrowthRequest("console: callbacks", "/deliveries"),
    GrowthRequest("console: callbacks of all users", "/deliveries?whose=all"),
    GrowthRequest("console: callbacks of all users that failed", "/deliveries?whose=all&status=failed"),
    GrowthRequest("console: installation", "/installation"),
)
