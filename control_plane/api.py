"""
The HTTP API, for `meshctl` and Prometheus.

Who is let in, and what for, is decided in `gate.py` and `access.py`, before anything here is called.
"""

import time
from collections import Counter
from collections.abc import Callable, Container, Iterable
from typing import Any, Protocol

import msgspec
from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from meshproxy import __version__, private_file
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, without_secrets
from meshproxy.contract.spiffe import SpiffeId

from . import answers
from .attestation import NotAttested
from .authority import Authority
from .gate import Gate, audit
from .join_tokens import JoinTokens
from .metrics import Metrics
from .resources.attachment import SPECIFICITY
from .revocation import Revocation
from .snapshots import Proxy, State
from .store import State as MeshState

REVOKED = "REVOKED"
"""State of a proxy with which nobody speaks, because its identity has been revoked."""

_LARGEST_BODY = 64 << 10


class _TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    workload: str


class Part(Protocol):
    """A part of the API that lives in a file of its own."""

    def add_routes(self, router: web.UrlDispatcher) -> None: ...


class Api:
    """
    Reads from the parts of the control plane that it is handed: `state` and `proxies` tell what is
    so now, `identity_of` and `snapshot_for` what a workload (``namespace/name``) is entitled to;
    identities in `revoked` get no token, `revocations` tell since when and why; `parts` answer what is not answered here.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        state: Callable[[], MeshState],
        proxies: dict[str, Proxy],
        identity_of: Callable[[str], SpiffeId | None],
        snapshot_for: Callable[[str], Snapshot | None],
        authority: Authority,
        tokens: JoinTokens,
        metrics: Metrics,
        revoked: Container[SpiffeId] = (),
        revocations: Callable[[], Iterable[Revocation]] = list,
        parts: Iterable[Part] = (),
    ) -> None:
        self._gate = gate
        self._state = state
        self._proxies = proxies
        self._identity_of = identity_of
        self._snapshot_for = snapshot_for
        self._authority = authority
        self._tokens = tokens
        self._revoked = revoked
        self._revocations = revocations
        self._parts = parts
        self._metrics = metrics
        self._started = time.monotonic()
        metrics.watch_proxies(self.count_proxies)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_BODY)
        self._gate.guard(app)
        app.router.add_get("/healthz/live", self._healthy)
        app.router.add_get("/healthz/ready", self._healthy)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/api/v1/status", self._status)
        app.router.add_get("/api/v1/proxies", self._all_proxies)
        app.router.add_get("/api/v1/proxies/{namespace}/{name}/snapshot", self._snapshot)
        app.router.add_get("/api/v1/roots", self._roots)
        app.router.add_post("/api/v1/tokens", self._token)
        for part in self._parts:
            part.add_routes(app.router)
        return app

    # What is so -------------------------------------------------------------------------------

    async def _healthy(self, _request: web.Request) -> web.Response:
        return answers.say({"status": "ok"})

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        page = generate_latest(self._metrics.registry)
        return web.Response(body=page, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    async def _status(self, _request: web.Request) -> web.Response:
        state = self._state()
        kinds: Counter[str] = Counter(route.kind for route in state.routes.values())
        policies: Counter[str] = Counter(policy.kind for policy in state.policies.values())
        return answers.say(
            {
                "build": __version__,
                "revision": state.revision,
                "trust_domain": self._authority.trust_domain,
                "uptime_seconds": round(time.monotonic() - self._started, 3),
                "resources": {
                    "Service": len(state.services),
                    "HTTPRoute": kinds["HTTPRoute"],
                    # Of the rarer kinds, those that there are.
                    **{kind: kinds[kind] for kind in SPECIFICITY if kinds[kind]},
                    **dict(sorted(policies.items())),
                    "Workload": len(state.workloads),
                    "MeshConfig": int(state.mesh_config is not None),
                },
                "findings": state.findings,
                "proxies": self.count_proxies(),
                "revoked": self._all_revoked(),
            }
        )

    async def _all_proxies(self, _request: web.Request) -> web.Response:
        now = time.time()
        return answers.say([self._described(proxy, now) for proxy in self._known()])

    async def _snapshot(self, request: web.Request) -> web.Response:
        workload = f"{request.match_info['namespace']}/{request.match_info['name']}"
        snapshot = self._snapshot_for(workload)
        if snapshot is None:
            return answers.refuse(
                404,
                f"There is no snapshot for {workload} now: no such workload, or it waits for the"
                " keys of a new issuer (`meshctl status` says so).",
            )
        return answers.say(without_secrets(snapshot))

    async def _roots(self, _request: web.Request) -> web.Response:
        return web.Response(text="".join(self._authority.roots()))

    # What is done -----------------------------------------------------------------------------

    async def _token(self, request: web.Request) -> web.Response:
        try:
            workload = wire.decode(await request.read(), _TokenRequest).workload
        except wire.ContractError as error:
            return answers.refuse(400, f'Expected {{"workload": "namespace/name"}}: {error}.')
        audit(request, f"join token for {workload}")
        identity = self._identity_of(workload)
        if identity is None:
            return answers.refuse(404, f"There is no workload {workload!r}.")
        if identity in self._revoked:
            return answers.refuse(409, f"{identity} has been revoked: no token would help it.")
        try:
            token, expires = self._tokens.issue(workload, identity)
        except NotAttested as error:
            return answers.refuse(429, error.reason)
        except private_file.PrivateFileError as error:
            return answers.refuse(500, str(error))
        return answers.say({"token": token, "identity": str(identity), "expires_at": expires})

    # Proxies, connected or not ----------------------------------------------------------------

    def count_proxies(self) -> dict[str, int]:
        """Return how many proxies are in each state."""
        found = Counter(self._state_of(proxy) for proxy in self._known())
        return {state: found[state] for state in (*State, REVOKED)}

    def _state_of(self, proxy: Proxy) -> str:
        """Return its state; of one that is away because nobody speaks with it, that."""
        away = proxy.state is State.DISCONNECTED
        return REVOKED if away and self._is_revoked(proxy.workload) else proxy.state.value

    def _is_revoked(self, workload: str) -> bool:
        identity = self._identity_of(workload)
        return identity is not None and identity in self._revoked

    def _all_revoked(self) -> list[dict[str, Any]]:
        """Return the identities that are cut off, and the workloads that are so with them."""
        workloads = sorted(self._state().workloads)
        return [
            {
                **msgspec.structs.asdict(entry),
                "workloads": [
                    one for one in workloads if str(self._identity_of(one)) == entry.identity
                ],
            }
            for entry in self._revocations()
        ]

    def _known(self) -> list[Proxy]:
        never = "It has not connected since the control plane started."
        workloads = self._state().workloads
        return [
            self._proxies.get(workload) or Proxy(workload=workload, reason=never)
            for workload in sorted(workloads)
        ]

    def _reason_of(self, proxy: Proxy) -> str:
        if self._state_of(proxy) != REVOKED:
            return proxy.reason
        for entry in self._revocations():
            if entry.identity == str(self._identity_of(proxy.workload)) and entry.reason:
                return f"Its identity has been revoked: {entry.reason}"
        return "Its identity has been revoked."

    def _described(self, proxy: Proxy, now: float) -> dict[str, Any]:
        return {
            "workload": proxy.workload,
            "identity": proxy.identity or str(self._identity_of(proxy.workload) or ""),
            "state": self._state_of(proxy),
            "reason": self._reason_of(proxy),
            "path": proxy.path,
            "sent_version": proxy.sent_version,
            "acked_version": proxy.acked_version,
            "build": proxy.build,
            "admin": proxy.admin,
            "connected_since": proxy.connected_since,
            "last_ack_age_seconds": None
            if proxy.last_ack is None
            else round(now - proxy.last_ack, 3),
            "certificate_not_after": proxy.certificate_not_after,
        }
