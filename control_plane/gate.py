"""
What every request to the API passes before, and every answer after, it is dealt with.

**A web page in an operator's browser is the attacker to think of**: it can make that browser send
requests here, from inside.  It gets nowhere, because

- the Host must be an address, `localhost` or a name that is configured: a page cannot point a name
  of its own here (DNS rebinding);
- an `Origin` other than our own is refused, and so is what the browser itself calls cross-site
  (Fetch Metadata): this matters where a client certificate, which a browser sends unasked, is proof;
- there are no cookies, and no CORS header ever allows another origin to read or to preflight;
- what acts must be JSON by its Content-Type, which a form cannot send without such a preflight.

**An error tells the caller what it did wrong, and nothing about us**; ours go into the log, under an
id that the caller gets.  Whatever acts, or would have, leaves a line in the log: who, from where,
what, and how it ended.
"""

import ipaddress
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from aiohttp import hdrs, web

from meshproxy.contract.spiffe import SpiffeId

from . import answers
from .access import READING, Access, Caller, Role
from .peer import peer_of

log = logging.getLogger(__name__)
audit_log = logging.getLogger("control_plane.audit")
audit_log.setLevel(logging.INFO)  # of its own: these lines are written whatever `log_level` says

OPEN: Final = ("/healthz/live", "/healthz/ready")
"""Paths for everybody: they tell that we live, and nothing else."""

HARDENING: Final = {
    # Nothing that we send is a page that may run or load anything, or be shown inside another.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "mesh-control-plane",  # and not the versions of Python and aiohttp
}

_WHAT: Final = web.RequestKey("audit", str)
_JSON: Final = "application/json"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """
    Args:
        access: Knows who may do what.
        trust_domain: Whose certificates count.
        refused: Told of each refusal, by its reason.
        hosts: Names, besides addresses, under which the API may be asked for.
    """

    def __init__(
        self,
        access: Access,
        trust_domain: str,
        refused: Callable[[str], None],
        hosts: Collection[str] = (),
    ) -> None:
        self._access = access
        self._trust_domain = trust_domain
        self._refused = refused
        self._hosts = frozenset(host.lower() for host in ("localhost", *hosts))

    def guard(self, app: web.Application) -> None:
        """Stand before an application."""
        app.middlewares.append(self._pass)
        app.on_response_prepare.append(_harden)

    @web.middleware
    async def _pass(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = self._foreign(request)
        if refusal is None and request.path not in OPEN:
            caller = self._caller(request)
            if caller is None:
                self._refused("nobody")
                answer = answers.refuse(
                    401, "A token is needed (Authorization: Bearer …), or a certificate."
                )
                answer.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
                return answer
            if request.method not in READING:
                return await self._act(request, handler, caller)
        return refusal or await _answered(request, handler)

    async def _act(
        self, request: web.Request, handler: Handler, caller: Caller
    ) -> web.StreamResponse:
        if caller.role < Role.OPERATE:
            self._refused("role")
            answer: web.StreamResponse = answers.refuse(
                403, "This needs the role operate; yours is view."
            )
        elif request.content_type != _JSON:
            self._refused("content-type")
            answer = answers.refuse(415, f"Expected Content-Type: {_JSON}.")
        else:
            answer = await _answered(request, handler)
        audit_log.info(
            "%s, from %s: %s %s: %s: %d",
            caller.name, request.remote, request.method, request.path, request.get(_WHAT, "-"),
            answer.status,
        )  # fmt: skip
        return answer

    def _caller(self, request: web.Request) -> Caller | None:
        peer = peer_of(request.transport, self._trust_domain)
        certified: SpiffeId | None = None if peer is None else peer.identity
        return self._access.of(request.headers.get(hdrs.AUTHORIZATION), certified)

    def _foreign(self, request: web.Request) -> web.Response | None:
        """Return the refusal of a request that no client of ours would send."""
        host = request.headers.get(hdrs.HOST, "")
        if not self._is_ours(host):
            self._refused("host")
            return answers.refuse(
                421, "The Host must be an IP address, localhost or a configured name."
            )
        origin = request.headers.get(hdrs.ORIGIN)
        site = request.headers.get("Sec-Fetch-Site", "none")
        ours = origin is None or origin == f"{request.scheme}://{host}"
        if not ours or site not in ("none", "same-origin"):
            self._refused("origin")
            return answers.refuse(403, "Requests of other web sites are not served.")
        return None

    def _is_ours(self, host: str) -> bool:
        bracketed = host.startswith("[")
        name = host[1:].partition("]")[0] if bracketed else host.partition(":")[0]
        return name.lower() in self._hosts or _is_address(name)


def audit(request: web.Request, what: str) -> None:
    """Note what a request is about, for the audit log; never a secret."""
    request[_WHAT] = what


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as refused:
        return answers.refuse(refused.status, f"{request.method} {request.path}: {refused.reason}")
    except Exception:  # a mistake of ours: for our log, not for the caller
        name = secrets.token_hex(8)
        log.exception("%s %s failed (%s)", request.method, request.path, name)
        return answers.refuse(
            500, f"Something is wrong here; the log of the control plane has it: {name}."
        )


async def _harden(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HARDENING)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
