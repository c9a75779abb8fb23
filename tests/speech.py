"""A speech endpoint that recognizes one word in every recording.

Real recognition takes the CPU that other tests wait for, and most tests only ask what becomes of a call. Those in
`integration/test_speech.py`, `acceptance/test_calls.py` and `asterisk/test_calls.py` recognize speech.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

_SECONDS = web.AppKey("seconds", float)


async def _answer(request: web.Request) -> web.Response:
    await request.read()
    await asyncio.sleep(request.app[_SECONDS])
    return web.json_response(
        {"text": "Hello", "language": "english", "words": [{"word": "Hello", "start": 0.0, "end": 0.4}]}
    )


@asynccontextmanager
async def speech_endpoint(seconds: float = 0) -> AsyncIterator[dict[str, str]]:
    """Serve it; yields the settings that make an installation use it. `seconds`: how long an answer takes."""
    app = web.Application(client_max_size=2**28)
    app[_SECONDS] = seconds
    app.router.add_post("/v1/{path:.*}", _answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield {"RINGBACK_RECOGNIZER": "openai", "RINGBACK_SPEECH_URL": f"http://{host}:{port}/v1"}
    finally:
        await runner.cleanup()
