"""The server of the viewer: pages, tiles and judgments, for those alone who have the token.

It answers under the names of this computer only, so that no page of the Internet can reach it by a
name of its own, and tells browsers to load nothing from elsewhere. Slides are named by their ids in
the project; no address becomes a path.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from qprd.errors import QprdError
from qprd.qupath.reviews import Verdict
from qprd.review.index_page import INDEX_NAME
from qprd.view.content import Content
from qprd.view.predicted import NotFoundError

#: Names under which the server answers, at any port: a tunnel may have another one.
_HOSTS = ("127.0.0.1", "localhost")
_COOKIE = "qprd_view"
TOKEN_HEADER = "X-Qprd-Token"  # noqa: S105
_MAX_BODY_BYTES = 64 * 1024
_PAGES = {
    "index.html": "text/html",
    "view.css": "text/css",
    "view.js": "text/javascript",
    "pane.js": "text/javascript",
    "openseadragon.min.js": "text/javascript",
}
_LINKED = {".png": "image/png", ".json": "application/json", ".geojson": "application/geo+json"}
#: Of the style element that OpenSeadragon makes; a browser names it in its console.
_STYLE_HASH = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="
_POLICY = (
    "default-src 'none'; {}; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY.format(
        f"script-src 'self'; style-src 'self' '{_STYLE_HASH}'; connect-src 'self'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: The addresses of tiles and overlays change with what they show.
_KEPT = {"Cache-Control": "private, max-age=86400"}


class _Judgment(BaseModel):
    """What the page sends when a region was judged."""

    model_config = ConfigDict(extra="forbid")

    region: Annotated[str, Field(max_length=100)]
    verdict: Verdict
    name: Annotated[str, Field(max_length=200)] = ""
    note: Annotated[str, Field(max_length=10_000)] = ""


def make_app(content: Content, token: str, reviewer: str = "") -> Starlette:
    """Make the application, for browsers that know the token.

    The page proposes ``reviewer`` as the name of who reviews.
    """
    pages = {name: (files("qprd.view") / "static" / name).read_bytes() for name in _PAGES}

    def page(name: str) -> Response:
        if name not in pages:
            raise NotFoundError("There is no such page.")
        return Response(pages[name], media_type=_PAGES[name])

    def image(kind: str, read: Callable[..., bytes]) -> Callable[[Request], Any]:
        return lambda request: Response(
            read(request.path_params["id"], **_which(request)),
            media_type=f"image/{kind}",
            headers=_KEPT,
        )

    def result_page(request: Request) -> Response:
        return Response(
            content.page(request.path_params["name"]),
            media_type="text/html",
            headers={"Content-Security-Policy": _result_page_policy()},
        )

    def linked(request: Request) -> Response:
        entry_id, name = request.path_params["id"], request.path_params["name"]
        found = content.linked_file(entry_id, name)
        return Response(found, media_type=_LINKED[PurePath(name).suffix])

    def tile(request: Request) -> Response:
        place = request.path_params
        numbers = [place[name] for name in ("level", "column", "row")]
        return Response(content.tile(place["id"], *numbers), media_type="image/jpeg", headers=_KEPT)

    def contours(request: Request) -> Response:
        found = content.contours(
            request.path_params["id"],
            threshold=_number(request, "threshold"),
            probability=_number(request, "probability"),
            **_which(request),
        )
        return _json(found)

    async def judge(request: Request) -> Response:
        body = await _body(request)
        try:
            given = _Judgment.model_validate_json(body)
        except ValidationError as error:
            raise QprdError(
                f"This is no judgment: {error.errors()[0]['msg']}.", fix="Reload the page."
            ) from error
        regions = await run_in_threadpool(
            content.judge,
            request.path_params["id"],
            given.region,
            given.verdict,
            name=given.name,
            note=given.note,
        )
        return _json(regions)

    slide = "/slides/{id}"
    return Starlette(
        routes=[
            Route("/", lambda _: page("index.html")),
            Route("/static/{name}", lambda request: page(request.path_params["name"])),
            Route("/project", lambda _: _json({**content.project(), "reviewer": reviewer})),
            Route("/favicon.ico", lambda _: Response(status_code=204)),
            Route("/results/{name}", result_page),
            Route("/results/{id}/{name}", linked),
            Route(slide, lambda request: _json(content.slide(request.path_params["id"]))),
            Route(
                f"{slide}/thumbnail",
                image("jpeg", lambda entry_id, **_: content.thumbnail(entry_id)),
            ),
            Route(f"{slide}/heatmap", image("png", content.heatmap)),
            Route(f"{slide}/unscored", image("png", content.unscored)),
            Route(f"{slide}/contours", contours),
            Route(f"{slide}/tiles/{{level:int}}/{{column:int}}/{{row:int}}", tile),
            Route(f"{slide}/judgments", judge, methods=["POST"]),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(_HOSTS), www_redirect=False),
            Middleware(BaseHTTPMiddleware, dispatch=_guard(token)),
        ],
        exception_handlers={QprdError: _error},
    )


def _guard(token: str) -> Callable[[Request, Any], Awaitable[Response]]:
    """Let those pass who have the token, and add the headers to every answer."""
    # Browsers send a cookie to all ports of a computer, where other projects may be shown.
    cookie = f"{_COOKIE}_{sha256(token.encode()).hexdigest()[:8]}"

    def knows(given: str | None) -> bool:
        return secrets.compare_digest((given or "").encode(), token.encode())

    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response: Response
        if request.url.path == "/" and knows(request.query_params.get("token")):
            # The address without the token, which would otherwise stay in the browser's history.
            response = RedirectResponse("/", status_code=303)
            response.set_cookie(cookie, token, httponly=True, samesite="lax")
        elif not (knows(request.cookies.get(cookie)) or knows(request.headers.get(TOKEN_HEADER))):
            response = Response("Open the address that qprd view has printed.", 403)
        elif not _from_this_page(request):
            response = Response("Another page may not write here.", 403)
        else:
            response = await answer(request)
        response.headers.setdefault("Cache-Control", "no-store")
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return guard


def _from_this_page(request: Request) -> bool:
    """Whether a request that writes comes from a page of this server, or from no page at all."""
    origin = request.headers.get("origin")
    if request.method in ("GET", "HEAD") or origin is None:
        return True
    return origin == f"http://{request.headers.get('host')}"


def _result_page_policy() -> str:
    """For pages in the project, which a stranger may have written: only our own script runs."""
    template = (files("qprd.review") / "templates" / INDEX_NAME).read_text(encoding="utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return _POLICY.format(f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'")


def _which(request: Request) -> dict[str, bool]:
    """Whether a request is for the result of the bundle before."""
    return {"earlier": True} if request.query_params.get("of") == "earlier" else {}


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise NotFoundError("This is no number.") from error


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise QprdError("This is too long for a judgment.", fix="Shorten the note.")
    return body


def _json(value: object, status: int = 200) -> Response:
    """An answer as JSON, which has neither NaN nor infinity: null stands for them."""
    content = to_json(value, inf_nan_mode="null")
    return Response(content, status, media_type="application/json")


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, QprdError)
    status = 404 if isinstance(error, NotFoundError) else 409
    return _json({"problem": error.problem, "fix": error.fix}, status)
