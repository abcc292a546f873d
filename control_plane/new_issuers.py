"""
A policy that names a new issuer waits, a moment, for that issuer's keys.

    a state with a new jwksUri ─▶ the first fetch begins ─▶ keys, or a reason why not ─▶ in force
                                        └─ PATIENCE, whatever comes of it ─────────────▶ in force

Put in force before its keys are here, a policy answers 401 to everybody who has a good token.  So the
workloads that it is about go on under what held before: **all** their policies of security, since
those of one save belong together (the policy that takes passwords away, the one that asks for tokens
instead).  All else (endpoints, routes, revocations, other workloads) is not held up.  Where the old
policies would mean something else now (the workload is new or has other labels, the control plane has
only just started), the sidecar goes on with what it has, which may be nothing.  So nothing is more
open meanwhile than it was before.

After `PATIENCE` the policies hold, keys or not: no token of that issuer is right then, until they
come.  A workload that has waited does not wait again before all its issuers have answered, so more
new addresses keep no policy from it for longer.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from .generate.authentication import NO_KEY_SETS
from .generate.authentication import KeySets as Known
from .key_sets import KeySets
from .resources.finding import Finding
from .resources.model import DEFAULT_MESH, MeshConfigSpec
from .resources.security import RequestAuthentication, SecurityPolicy
from .resources.selection import is_about
from .store import State

PATIENCE: Final = 3.0
"""Seconds; a fetch takes a tenth of one, and a DENY that is saved meanwhile should not wait long."""


class View(NamedTuple):
    """What a workload is to know: the state, and the keys that belong to its policies."""

    state: State
    key_sets: Known


class _Wait(NamedTuple):
    """
    Attributes:
        until: When it ends, by the clock.
        security: What holds meanwhile; None for whatever the sidecar has.
        key_sets: The keys of that.
    """

    until: float
    security: dict[str, SecurityPolicy] | None
    key_sets: Known


class NewIssuers:
    """
    Keeps the policies of new issuers back.

    Attributes:
        on_over: Called when somebody has waited long enough.
    """

    def __init__(
        self,
        key_sets: KeySets,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_over: Callable[[], None] = lambda: None
        self._key_sets = key_sets
        self._patience = patience
        self._clock = clock
        self._state = State()
        self._known: Known = NO_KEY_SETS
        self._waiting: dict[str, _Wait] = {}
        self._woken = asyncio.Event()

    def __repr__(self) -> str:
        return f"<NewIssuers {len(self._waiting)} workloads waiting>"

    def follow(self, state: State) -> None:
        """Take note of the state that holds from now on, which `key_sets` follows already."""
        before, known = self._state, self._known
        alike = _settings(before) == _settings(state)
        mesh = state.mesh_config or DEFAULT_MESH
        until = self._clock() + self._patience
        awaited = self._key_sets.awaited()
        waiting: dict[str, _Wait] = {}
        for name, workload in state.workloads.items() if awaited else ():
            if any(is_about(policy, workload, mesh) for policy in awaited):
                old = before.workloads.get(name)
                same = alike and old is not None and old.metadata.labels == workload.metadata.labels
                security = before.security if same else None
                waiting[name] = self._waiting.get(name) or _Wait(until, security, known)
        self._waiting = waiting
        self._state, self._known = state, self._key_sets.known
        self._woken.set()

    def view(self, workload: str) -> View | None:
        """Return what a workload is to know now; None for what its sidecar has already."""
        wait = self._waiting.get(workload)
        if wait is None or self._clock() >= wait.until:
            return View(self._state, self._known)
        if wait.security is None:
            return None
        state = msgspec.structs.replace(self._state, security=wait.security)
        return View(state, wait.key_sets)

    def findings(self) -> Iterator[Finding]:
        """Yield the policies that are waited with."""
        now = self._clock()
        workloads = [self._state.workloads[name] for name in self._held_back(now)]
        mesh = self._state.mesh_config or DEFAULT_MESH
        for name, policy in _named(self._key_sets.awaited()).items():
            count = sum(is_about(policy, workload, mesh) for workload in workloads)
            if count:
                yield self._state.finding(
                    policy.kind,
                    name,
                    "spec.jwtRules",
                    f"waits for the first answer of an issuer, {self._patience:g} s at most; until"
                    f" then the policies of before hold for {count} of its workloads",
                    "unresolved",
                )

    async def run(self) -> None:
        """Tell when a wait is over, until cancelled."""
        told = self._clock()
        while True:
            self._woken.clear()
            due = [wait.until for wait in self._waiting.values() if wait.until > told]
            with suppress(TimeoutError):
                async with asyncio.timeout(min(due) - self._clock() if due else None):
                    await self._woken.wait()
                    continue
            told = self._clock()
            self.on_over()

    def _held_back(self, now: float) -> list[str]:
        return [name for name, wait in self._waiting.items() if now < wait.until]


def _settings(state: State) -> MeshConfigSpec:
    """Return what of the MeshConfig says more than where keys may come from."""
    mesh = state.mesh_config or DEFAULT_MESH
    return msgspec.structs.replace(mesh.spec, jwks=DEFAULT_MESH.spec.jwks)


def _named(policies: list[RequestAuthentication]) -> Mapping[str, RequestAuthentication]:
    return {f"{one.metadata.namespace}/{one.metadata.name}": one for one in policies}
