"""The verification code of docs/callbacks.md, as pasted. `acceptance/test_clients.py` runs the code for Node."""

import asyncio
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.integration.receiver import Receiver, listening

DOCS = (Path(__file__).parents[2] / "docs/callbacks.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"event": "transcript.ready"}'


def code(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return next(block for block in blocks if containing in block)


def test_python() -> None:
    names: dict[str, Any] = {}
    exec(code("python", "receive").replace("whsec_…", SECRET), names)
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now, BODY.decode()),
    }
    assert names["receive"](headers, BODY) == {"event": "transcript.ready"}
    with pytest.raises(WebhookVerificationError):
        names["receive"](headers, BODY + b" ")


async def test_curl_and_openssl(tmp_path: Path) -> None:
    missing = [name for name in ("curl", "openssl") if shutil.which(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    async with listening(Receiver()) as receiver:
        script = re.sub(r"^SECRET=.*$", f"SECRET={SECRET}", code("sh", "openssl"), flags=re.MULTILINE)
        script = script.replace("http://127.0.0.1:9000/hooks", receiver.url)
        shell = await asyncio.create_subprocess_exec("sh", "-euc", script, cwd=tmp_path)
        assert await shell.wait() == 0
    (callback,) = receiver.received
    Webhook(SECRET).verify(callback.body, callback.headers)
