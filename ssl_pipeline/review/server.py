"""The page of a review over HTTP or HTTPS, for one reader.

Only the owner's own browser may use it: each request carries a token that is made at the start
(compared in constant time), its Host is this machine's own name, so that no other site's name can
be pointed here, and its Origin, where it has one, is the page itself. What is served names scans by
codes of the page, and has neither a path nor anything of a header.
"""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.locks import NoLocksError
from ssl_pipeline.review.niivue import read_viewer
from ssl_pipeline.review.page_address import THIS_MACHINE
from ssl_pipeline.review.pictures import draw_slice
from ssl_pipeline.review.session import ChangedScanError, ReviewSession
from ssl_pipeline.review.viewer_volumes import overlay_nifti, scan_nifti
from ssl_pipeline.volumes.readers import ReadError

PAGE = Path(__file__).with_name("page")
PAGE_FILES = ("page.js", "view_state.js", "slices.js", "volumes.js", "page.css")
SCAN = "scan"  # the layer of a volume that is no overlay
MAX_TARGET_BYTES, MAX_BODY_BYTES = 1000, 4096  # of the address, and of an answer
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# What went wrong, without the library's own words, which may hold a path.
NO_VIEWER = "NiiVue is not installed: the page draws slices."
NO_ITEM = "There is no such item."
BAD_ANSWER = "This is no answer."
UNREADABLE = "This scan cannot be drawn any more: run the stage inventory again."
NOT_SAVED = "The answer was NOT saved: the disk is full, or refuses it."
NO_LOCKS = "The answer was NOT saved: the log lies on a file system without locks."
CHANGED_LOG = "The log is not as it was written: ssl-pipeline review verify says where."

Work = Callable[[Request], Awaitable[Response]]


def build_app(session: ReviewSession, token: str, host: str = THIS_MACHINE[0]) -> Starlette:
    """The application for the reader of `session`; `token` is what a request must carry.

    `host` is the name by which other machines reach this one, where they may.
    """
    routes = _Routes(session)
    return Starlette(
        routes=[
            Route("/", routes.page),
            *(Route(f"/{name}", routes.file) for name in PAGE_FILES),
            Route("/niivue.js", routes.viewer),
            Route("/favicon.ico", routes.no_icon),
            Route("/status", _explained(routes.status)),
            Route("/items/{name}", _explained(routes.item)),
            Route("/items/{name}/{number:int}/{plane}/{index:int}.png", _explained(routes.picture)),
            Route("/items/{name}/{number:int}/{layer}.nii", _explained(routes.volume)),
            Route("/items/{name}/neighbours/{rank:int}.jpeg", _explained(routes.neighbour)),
            Route("/items/{name}/answer", _explained(routes.answer), methods=["POST"]),
            Route("/undo", _explained(routes.undo), methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, token=token, names={*THIS_MACHINE, host})],
    )


class _Routes:
    """What each address does."""

    def __init__(self, session: ReviewSession) -> None:
        self._session = session
        self._viewer = read_viewer()  # in memory, so that what is served is what was checked

    async def page(self, request: Request) -> Response:
        return FileResponse(PAGE / "page.html")

    async def file(self, request: Request) -> Response:
        return FileResponse(PAGE / request.url.path.lstrip("/"))

    async def viewer(self, request: Request) -> Response:
        if self._viewer is None:
            return _refusal(404, NO_VIEWER)
        return Response(self._viewer, media_type="text/javascript")

    async def no_icon(self, request: Request) -> Response:
        return Response(status_code=204)

    async def status(self, request: Request) -> Response:
        status = await run_in_threadpool(self._session.status)
        return JSONResponse(status | {"viewer": self._viewer is not None})

    async def item(self, request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(await run_in_threadpool(self._session.describe, name))

    async def picture(self, request: Request) -> Response:
        place, query = request.path_params, request.query_params
        window = (float(query["low"]), float(query["high"]))
        if not np.isfinite(window).all():
            raise ValueError("the window is not finite")

        def draw() -> bytes:
            volume = self._session.volume(place["name"], place["number"])
            overlay = query.get("overlay", "")
            return draw_slice(volume, place["plane"], place["index"], window, overlay)

        return Response(await run_in_threadpool(draw), media_type="image/png")

    async def volume(self, request: Request) -> Response:
        place, detail = request.path_params, request.query_params["detail"]

        def write() -> bytes:
            volume = self._session.volume(place["name"], place["number"])
            if place["layer"] == SCAN:
                return scan_nifti(volume, detail)
            return overlay_nifti(volume, place["layer"], detail)

        return Response(await run_in_threadpool(write), media_type="application/octet-stream")

    async def neighbour(self, request: Request) -> Response:
        neighbours = self._session.neighbours(request.path_params["name"])
        return Response(neighbours[request.path_params["rank"]].thumbnail, media_type="image/jpeg")

    async def answer(self, request: Request) -> Response:
        given = await _json_body(request)
        name = request.path_params["name"]
        entry = await run_in_threadpool(self._session.answer, name, given)
        return JSONResponse({"number": entry.number})

    async def undo(self, request: Request) -> Response:
        return JSONResponse({"name": await run_in_threadpool(self._session.undo)})


def _explained(work: Work) -> Work:
    """The same with a sentence and a status for what may go wrong."""

    async def explained(request: Request) -> Response:
        try:
            return await work(request)
        except (KeyError, IndexError):
            return _refusal(404, NO_ITEM)
        except ReadError:
            return _refusal(422, UNREADABLE)
        except ChangedScanError as error:
            return _refusal(409, str(error))
        except NoLocksError:
            return _refusal(507, NO_LOCKS)
        except UserError:
            return _refusal(503, CHANGED_LOG)
        except (ValidationError, ValueError):
            return _refusal(400, BAD_ANSWER)
        except OSError:
            return _refusal(507, NOT_SAVED)

    return explained


def _refusal(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)


async def _json_body(request: Request) -> dict[str, Any]:
    """The body as JSON. Raises ValueError where it is none, or too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise ValueError("the body is too long")
    try:
        content = json.loads(body)
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("the body is no object")
    return content


class _Guard:
    """Lets through what comes from the owner's browser, and adds the headers of security."""

    def __init__(self, app: ASGIApp, token: str, names: Collection[str]) -> None:
        self._app, self._token, self._names = app, token.encode(), names
        # Of its own for each server, for browsers share cookies between ports.
        self._cookie = f"review-{hashlib.sha256(self._token).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":  # and no websocket
            await self._guarded(Request(scope, receive))(scope, receive, _with_headers(send))

    def _guarded(self, request: Request) -> ASGIApp:
        if len(request.scope["raw_path"]) + len(request.scope["query_string"]) > MAX_TARGET_BYTES:
            return Response("This address is too long.", 414)
        if not self._is_own_host(request) or not _is_own_origin(request):
            return Response("This address is refused.", 403)
        given = request.query_params.get("token")
        if given is not None and request.url.path == "/" and self._is_token(given):
            response = RedirectResponse("/", 303)  # so that the address no longer has it
            is_secret = request.scope["scheme"] == "https"
            response.set_cookie(
                self._cookie, given, httponly=True, samesite="strict", secure=is_secret
            )
            return response
        if not self._is_token(request.cookies.get(self._cookie, "")):
            return Response("Open the address that ssl-pipeline review printed.", 403)
        return self._app

    def _is_own_host(self, request: Request) -> bool:
        """Whether it is asked by a name of this machine; any port, for ssh may have another."""
        name, _, port = request.headers.get("host", "").partition(":")
        return name in self._names and (not port or (port.isascii() and port.isdigit()))

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="surrogateescape"), self._token)


def _is_own_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    return origin is None or origin == f"{request.scope['scheme']}://{request.headers['host']}"


def _with_headers(send: Send) -> Send:
    """Send with HEADERS."""
    own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def send_all(message: Any) -> None:
        if message["type"] == "http.response.start":
            others = [each for each in message["headers"] if each[0] not in dict(own)]
            message = {**message, "headers": [*others, *own]}
        await send(message)

    return send_all
