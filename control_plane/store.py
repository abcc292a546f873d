"""
The one copy of desired state: what the mesh should be, at one revision.

A source hands in a whole `State`; the store keeps it, counts revisions, and tells subscribers.
There is no partial update to get wrong: what a state does not contain is not wanted any more.  A
source that could not read must therefore hand in what it knew before.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct

from .placement import Placements
from .resources.finding import Finding
from .resources.gateway_api import Route
from .resources.model import MeshConfig, Service, Workload
from .resources.policies import Policy
from .resources.security import SecurityPolicy


class Location(Struct, frozen=True):
    """Where a resource was written."""

    file: str
    line: int


class State(Struct, frozen=True, kw_only=True):
    """
    Everything the mesh should be; immutable.

    Attributes:
        revision: Counts changes since the store was made.
        services: By ``namespace/name``, as are workloads.
        routes: By ``Kind/namespace/name``: routes of two kinds may share a name.
        policies: The same, as is security.
        mesh_config: None when nobody wrote one: the defaults hold.
        findings: What keeps a file, or part of a resource, out of force.
        locations: By ``Kind/namespace/name``.
    """

    revision: int = 0
    services: dict[str, Service] = {}
    routes: dict[str, Route] = {}
    policies: dict[str, Policy] = {}
    security: dict[str, SecurityPolicy] = {}
    workloads: dict[str, Workload] = {}
    mesh_config: MeshConfig | None = None
    placements: Placements = Placements()
    findings: tuple[Finding, ...] = ()
    locations: dict[str, Location] = {}

    def finding(
        self,
        kind: str,
        name: str,
        field: str,
        message: str,
        severity: Literal["error", "unresolved"] = "error",
    ) -> Finding:
        """Return what is wrong with a resource (``namespace/name``), with the place where it stands."""
        where = self.locations.get(f"{kind}/{name}")
        return Finding(
            file=where.file if where else "",
            line=where.line if where else 0,
            kind=kind,
            name=name,
            field=field,
            message=message,
            severity=severity,
        )


Subscriber = Callable[[State], None]


class Store:
    """Holds the state in force."""

    def __init__(self) -> None:
        self.state = State()
        self._subscribers: list[Subscriber] = []

    def __repr__(self) -> str:
        state = self.state
        return (
            f"<Store revision {state.revision} [{len(state.services)} services, "
            f"{len(state.routes)} routes, {len(state.policies)} policies, "
            f"{len(state.workloads)} workloads, {len(state.findings)} findings | {len(self._subscribers)} subscribers]>"
        )

    def replace(self, state: State) -> bool:
        """
        Put `state` in force and tell subscribers; say whether anything changed.

        Its `revision` does not count: the store gives it the next one.
        """
        state = msgspec.structs.replace(state, revision=self.state.revision)
        if state == self.state:
            return False
        self.state = msgspec.structs.replace(state, revision=state.revision + 1)
        for subscriber in tuple(self._subscribers):  # one may unsubscribe while it is told
            subscriber(self.state)
        return True

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` with every state from now on; return what ends that."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe
