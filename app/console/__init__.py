"""The web console, at `/`. Pages from the server, made of the same domain functions as the API."""

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from app.console.live import Streams
from app.console.pages import STATIC
from app.console.routes import account, call, calls, deliveries, installation, new_call, numbers
from app.console.state import ConsoleState

__all__ = ["ConsoleState", "Streams", "install_console"]


class _Files(StaticFiles):
    """Their addresses change with their content, so browsers may keep them."""

    def file_response(self, *arguments: object, **options: object) -> Response:
        response = super().file_response(*arguments, **options)  # type: ignore[arg-type]
        response.headers.update({"Cache-Control": "public, max-age=31536000, immutable"})
        response.headers.update({"X-Content-Type-Options": "nosniff"})
        return response


def install_console(app: FastAPI) -> None:
    """Add the pages, and the files that they need. `app.state.console` is there once the application has started."""
    for part in (account, new_call, calls, call, numbers, deliveries, installation):
        app.include_router(part.router, include_in_schema=False)
    app.mount("/static", _Files(directory=STATIC))
