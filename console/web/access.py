"""Who may use the page: its own origin only, and with `console.web_token` only who knows the token."""

import hashlib
import hmac
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "foldback_web"
LOGIN = "/login"
LONGEST_FORM = 4096
POLICY_VIOLATION = 1008
"""WebSocket close code (RFC 6455, 7.4.1)."""


class Access:
    """ASGI middleware around pages, files and WebSocket alike.

    Another site that is open in the same browser could otherwise steer this one: by its own connection (so the Origin
    must be ours), or by a name of its own that points at this machine (so without a token the Host must be one of
    `names`).
    """

    def __init__(self, app: ASGIApp, token: str, names: Collection[str]) -> None:
        self._app, self._token, self._names = app, token.encode(), frozenset(names)
        self._cookie = hmac.new(self._token, b"foldback web page", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        why = self._foreign(headers)
        if not why and (not self._token or self._known(headers)):
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        refusal = PlainTextResponse(why, 403) if why else await self._log_in(Request(scope, receive))
        return await refusal(scope, receive, send)

    def _foreign(self, headers: Headers) -> str:
        """Why the request is not from our own page, or ""."""
        host = headers.get("host", "")
        if not self._token and urlsplit(f"//{host}").hostname not in self._names:
            return f"this page answers to {', '.join(sorted(self._names))}; for other names set console.web_token\n"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "a page of another origin may not use this one\n"
        return ""

    def _known(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())

    async def _log_in(self, request: Request) -> Response:
        """The form, or the cookie for whoever fills it in rightly."""
        if request.url.path != LOGIN or request.method != "POST":
            return _form(401, "")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_FORM:
                return _form(413, "That is too long for a token.")
        given = parse_qs(body.decode(errors="replace")).get("token", [""])[0]
        if not hmac.compare_digest(given.strip().encode(), self._token):
            return _form(401, "That is not the token. It is the value of console.web_token.")
        response = RedirectResponse("/", 303)
        response.set_cookie(
            COOKIE,
            self._cookie,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            max_age=30 * 86400,
        )
        return response


def _form(status: int, problem: str) -> HTMLResponse:
    page = resources.files(__package__).joinpath("login.html").read_text()
    return HTMLResponse(page.replace("{problem}", problem), status, {"Cache-Control": "no-store"})
