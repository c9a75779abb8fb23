"""The page at `/docs`: Swagger UI with the OpenAPI document, served from this machine alone."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

_OWN_FILES = Path(__file__).parent / "static"
# The page's script and style are files, because the policy allows nothing inline and no other origin.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class _Files(StaticFiles):
    def file_response(self, *arguments: object, **options: object) -> Response:
        response = super().file_response(*arguments, **options)  # type: ignore[arg-type]
        response.headers.update(_HEADERS)
        return response


def install_reference(app: FastAPI) -> None:
    """Add `/docs` and its files. They come from the package `fastapi-swagger`, none of whose code is used."""

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_OWN_FILES / "index.html", headers=_HEADERS)

    app.mount("/docs", _Files(directory=_OWN_FILES, packages=[("fastapi_swagger", "resources")]))
