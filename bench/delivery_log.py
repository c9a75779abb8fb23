"""The client of the chaos run: a receiver of callbacks, and a check of what it received.

Sometimes it refuses a message, or accepts it and drops the response. Then the message must come again.
"""

import json
import random
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app import vendor
from app.telephony.base import CallStatus
from bench.telephony_backends import Observed


class DeliveryLog:
    """Receives callbacks while the run lasts."""

    def __init__(self) -> None:
        self._bodies: dict[str, set[bytes]] = defaultdict(set)
        self._order: dict[str, list[str]] = defaultdict(list)
        self._met: set[str] = set()
        self._requests = 0
        self._unsigned = 0
        self._secrets: Sequence[str] = ()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1000)
        await web.SockSite(self._runner, listening).start()
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/hook"

    def trust(self, secrets: Sequence[str]) -> None:
        """The secrets that sign the callbacks."""
        self._secrets = secrets

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        message_id = request.headers["webhook-id"]
        self._requests += 1
        # Each message fails once at most. After a second failure it would come five minutes later, and the run would
        # wait.
        chance = 1.0 if message_id in self._met else random.random()
        self._met.add(message_id)
        if chance < 0.05:
            return web.Response(status=503)
        try:
            Webhook(self._secrets[0]).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self._unsigned += 1
        if message_id not in self._bodies:
            said = json.loads(body)
            self._order[said["data"]["call_id"]].append(said["event"])
        self._bodies[message_id].add(body)
        if chance < 0.1:
            assert request.transport is not None
            request.transport.close()
        return web.Response()

    def violations(self, calls: Iterable[Observed]) -> list[str]:
        """Callbacks that are missing or wrong."""
        found = [f"{self._unsigned} callbacks were not signed"] if self._unsigned else []
        found += [f"{name} came with different bodies" for name, bodies in self._bodies.items() if len(bodies) > 1]
        for call in calls:
            expected = [vendor.EVENT[CallStatus(call.status)], f"transcript.{call.transcript}"]
            if self._order[call.call_id] != expected:
                found.append(f"{call.call_id} was reported as {self._order[call.call_id]}, not as {expected}")
        return found

    def figures(self) -> list[str]:
        again = self._requests - len(self._bodies)
        return [
            f"callbacks                  {len(self._bodies)} events received in order; {again} requests more than that"
        ]
