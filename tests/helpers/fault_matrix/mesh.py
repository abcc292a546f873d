"""
Where the rows are tried: one sidecar, or two with mutual TLS between them, before the fault server.

    alone   client → a (outbound) ──────────────────────────────▶ fault server
    pair    client → a (outbound) ══ mutual TLS, HTTP/2 ══▶ b (inbound) ─▶ fault server

A service with two endpoints has the server's second one too, in a pair behind a third sidecar, c.

Each row has a service of its own for each protocol and way, so that no row sees what another has
left behind in a pool, a budget or a counter.  The policies are those of the client's side.
"""

import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from tests.helpers.certificates import TestAuthority
from tests.helpers.fault_server.handle import FaultServer
from tests.helpers.pair import DOMAIN, Sidecar, spiffe
from tests.helpers.ports import free_port

from .row import NOBODY, Lane, Policy, Second, Way

SESSION_SECRET = "5e" * 32
HEALTH = "health"


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        name: Of its service, and the id of its requests.
        policy: The name of its policy.
        second: The other endpoint of its service.
    """

    name: str
    lane: Lane
    way: Way
    policy: str
    second: Second | None = None


class FaultMesh:
    """
    Attributes:
        port: Where a takes requests, for each service by its authority.
    """

    def __init__(self, directory: Path, cases: Mapping[Case, Policy]) -> None:
        self.server = FaultServer()
        self.port, inbound, second_inbound = free_port(), free_port(), free_port()
        authority = TestAuthority()
        trust = (
            TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,), session_secret=SESSION_SECRET),
        )
        nobody = _endpoint(free_port())
        seconds: Mapping[tuple[Way, Second | None], tuple[EndpointSpec, ...]] = {
            ("alone", "twin"): (_endpoint(self.server.twin),),
            ("alone", "ill"): (_endpoint(self.server.ill),),
            ("pair", "twin"): (_endpoint(second_inbound),),
            ("pair", "ill"): (_endpoint(second_inbound),),
            ("alone", "nobody"): (nobody,),
            ("pair", "nobody"): (nobody,),
        }
        through_b = {case: policy for case, policy in cases.items() if case.way == "pair"}
        through_c = {case: policy for case, policy in through_b.items() if case.second}
        a = Snapshot(
            trust=trust,
            clusters=(
                ClusterSpec(name=NOBODY),
                *(
                    ClusterSpec(
                        name=case.name, protocol=_protocol(case),
                        mtls=case.way == "pair" or policy.peer,
                        **policy.cluster,
                    )
                    for case, policy in cases.items()
                ),
            ),
            endpoints=(
                EndpointsSpec(cluster=NOBODY, endpoints=(nobody,)),
                *(
                    EndpointsSpec(
                        cluster=case.name,
                        endpoints=(
                            _endpoint(inbound if case.way == "pair" else self.server.port),
                            *seconds.get((case.way, case.second), ()),
                        ),
                    )
                    for case in cases
                ),
            ),
            virtual_hosts=tuple(_virtual_host(case, policy) for case, policy in cases.items()),
            listeners=(
                ListenerSpec(
                    name="outbound", direction="outbound", address="127.0.0.1", port=self.port
                ),
            ),
        )  # fmt: skip
        self.a = Sidecar(
            directory, "client", a, authority.issue(spiffe("client"), directory, "client")
        )
        first = dict.fromkeys(through_b, self.server.port)
        second = {
            case: self.server.ill if case.second == "ill" else self.server.twin
            for case in through_c
        }
        self.beside_apps = []
        for name, port, apps, health in (
            ("server", inbound, first, self.server.port),
            ("twin", second_inbound, second, self.server.ill),
        ):
            snapshot = _inbound(trust, port, apps, health, cases)
            certificate = authority.issue(spiffe(name), directory, name)
            self.beside_apps.append(Sidecar(directory, name, snapshot, certificate))
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.server)
            for sidecar in (*self.beside_apps, self.a):
                stack.enter_context(sidecar)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._running.close()

    def state_of_second(self, names: Collection[str]) -> dict[str, str]:
        """Return what a thinks of the second endpoint of these services."""
        return {
            cluster["name"]: cluster["endpoints"][1]["state"]
            for cluster in self.a.get("/clusters")
            if cluster["name"] in names
        }

    def opened(self) -> float:
        """Return how many connections a has made to the server, or to the sidecars before it."""
        return sum(float(count) for count in _OPENED.findall(self.a.metrics()))

    def counted(self, totals: Mapping[str, int]) -> "dict[str, Counted]":
        """
        Return what a has counted for these services.

        Args:
            totals: By service, how many requests have been sent to it: they are waited for.
        """
        deadline = time.monotonic() + 20
        while True:
            counted = self._counted(totals)
            missing = [name for name, one in counted.items() if one.flags.total() < totals[name]]
            if not missing or time.monotonic() > deadline:
                return counted  # each is judged by itself
            time.sleep(0.05)

    def _counted(self, names: Collection[str]) -> "dict[str, Counted]":
        counted = {name: Counted() for name in names}
        # Not by prometheus_client's parser: it takes a third of a second for so many series.
        for name, text, value in _SAMPLE.findall(self.a.metrics()):
            labels = dict(_LABEL.findall(text))
            # By route: what is refused before a service was chosen has no destination.
            service = labels.get("route") if name == "requests" else labels.pop("cluster", "")
            if service not in counted:
                continue
            if name == "requests":
                counted[service].flags[labels["flag"]] += int(float(value))
            else:
                what = f"{name} {'/'.join(labels.values())}".strip()
                counted[service].counts[what] = int(float(value))
        return counted


_SAMPLE = re.compile(r"^mesh_(\w+)_total\{(.*)\} (.*)$", re.MULTILINE)
_OPENED = re.compile(r'^mesh_connections_opened_total\{.*side="upstream".*\} (\S+)$', re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Counted:
    """
    Attributes:
        flags: Requests by flag.
        counts: The counters of the cluster, in the words of `Row`.
    """

    flags: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)


def _endpoint(port: int) -> EndpointSpec:
    identities = (spiffe("server"), spiffe("twin"))
    return EndpointSpec(address="127.0.0.1", port=port, identities=identities)


def _inbound(
    trust: tuple[TrustSpec, ...],
    port: int,
    apps: Mapping[Case, int],
    health: int,
    cases: Mapping[Case, Policy],
) -> Snapshot:
    """
    Return what a sidecar beside an app obeys.

    Args:
        port: Where it hears peers.
        apps: The app's port, for each service.
        health: The port that tells of health: who checks knows addresses only.
    """
    anything = RouteSpec(name=HEALTH, backends=(BackendSpec(cluster=HEALTH),))
    return Snapshot(
        trust=trust,
        clusters=(
            ClusterSpec(name=HEALTH, protocol="http2"),
            *(
                ClusterSpec(name=case.name, protocol=_protocol(case), **cases[case].inbound)
                for case in apps
            ),
        ),
        endpoints=(
            EndpointsSpec(cluster=HEALTH, endpoints=(_endpoint(health),)),
            *(
                EndpointsSpec(cluster=case.name, endpoints=(_endpoint(app),))
                for case, app in apps.items()
            ),
        ),
        virtual_hosts=(
            VirtualHostSpec(name=HEALTH, domains=("*",), routes=(anything,)),
            *(_virtual_host(case, None) for case in apps),
        ),
        listeners=(
            ListenerSpec(
                name="inbound", direction="inbound", address="127.0.0.1", port=port, mtls="strict"
            ),
        ),
    )


def _protocol(case: Case) -> Literal["http1", "http2"]:
    return "http1" if case.lane == "http1" else "http2"


def _virtual_host(case: Case, policy: Policy | None) -> VirtualHostSpec:
    more = {} if policy is None else policy.route
    route = RouteSpec(name=case.name, backends=(BackendSpec(cluster=case.name),), **more)
    return VirtualHostSpec(name=case.name, domains=(f"{case.name}:80",), routes=(route,))
