"""The world outside of an installation, as a process: `python -m bench.outside PORT`.

It takes callbacks, and is a speech endpoint that recognizes one word in every recording, both at once. So a benchmark
measures what the server does, and not a model.
"""

import sys

from aiohttp import web

WORDS = {"text": "Hello", "words": [{"word": "Hello", "start": 0.0, "end": 0.4}]}


async def _answer(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response(WORDS)


def settings(port: int) -> dict[str, str]:
    """The settings of an installation that sends its recordings there."""
    return {
        "RINGBACK_OUTBOUND_NETWORKS": "127.0.0.0/8",
        "RINGBACK_RECOGNIZER": "openai",
        "RINGBACK_SPEECH_URL": f"http://127.0.0.1:{port}/v1",
    }


def main() -> None:
    """Serves until it is stopped."""
    app = web.Application(client_max_size=2**28)
    app.router.add_post("/{path:.*}", _answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


if __name__ == "__main__":
    main()
