"""
Where the rows are tried: one sidecar, or two with mutual TLS between them, before the fault server.

    alone   client → a (outbound) ──────────────────────────────▶ fault server
    pair    client → a (outbound) ══ mutual TLS, HTTP/2 ══▶ b (inbound) ─▶ fault server

Each row has a service of its own for each protocol and way, so that no row sees what another has
left behind in a pool, a budget or a counter.  The policies are those of the client's side.
"""

import re
import time
from collections import Counter
from collections.abc import Collection, Mapping
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

from .row import NOBODY, Lane, Policy, Way


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        name: Of its service, and the id of its requests.
        policy: The name of its policy.
        spare: Its service has another endpoint, at which nobody listens.
    """

    name: str
    lane: Lane
    way: Way
    policy: str
    spare: bool = False


class FaultMesh:
    """
    Attributes:
        port: Where a takes requests, for each service by its authority.
    """

    def __init__(self, directory: Path, cases: Mapping[Case, Policy]) -> None:
        self.server = FaultServer()
        self.port, inbound = free_port(), free_port()
        authority = TestAuthority()
        trust = (TrustSpec(trust_domain=DOMAIN, roots=(authority.pem,)),)
        to_app = EndpointSpec(
            address="127.0.0.1", port=self.server.port, identities=(spiffe("server"),)
        )
        to_peer = EndpointSpec(address="127.0.0.1", port=inbound, identities=(spiffe("server"),))
        to_nobody = EndpointSpec(
            address="127.0.0.1", port=free_port(), identities=(spiffe("server"),)
        )
        through_b = {case: policy for case, policy in cases.items() if case.way == "pair"}
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
                EndpointsSpec(cluster=NOBODY, endpoints=(to_nobody,)),
                *(
                    EndpointsSpec(
                        cluster=case.name,
                        endpoints=(
                            to_peer if case.way == "pair" else to_app,
                            *((to_nobody,) if case.spare else ()),
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
        b = Snapshot(
            trust=trust,
            clusters=tuple(
                ClusterSpec(name=case.name, protocol=_protocol(case), **policy.inbound)
                for case, policy in through_b.items()
            ),
            endpoints=tuple(
                EndpointsSpec(cluster=case.name, endpoints=(to_app,)) for case in through_b
            ),
            virtual_hosts=tuple(_virtual_host(case, None) for case in through_b),
            listeners=(
                ListenerSpec(
                    name="inbound", direction="inbound", address="127.0.0.1", port=inbound,
                    mtls="strict",
                ),
            ),
        )  # fmt: skip
        self.a = Sidecar(
            directory, "client", a, authority.issue(spiffe("client"), directory, "client")
        )
        self.b = Sidecar(
            directory, "server", b, authority.issue(spiffe("server"), directory, "server")
        )

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.b.__enter__()
        self.a.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.a.__exit__()
        self.b.__exit__()
        self.server.__exit__()

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
                counted[service].counts[f"{name} {'/'.join(labels.values())}"] = int(float(value))
        return counted


_SAMPLE = re.compile(r"^mesh_(\w+)_total\{(.*)\} (.*)$", re.MULTILINE)
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


def _protocol(case: Case) -> Literal["http1", "http2"]:
    return "http1" if case.lane == "http1" else "http2"


def _virtual_host(case: Case, policy: Policy | None) -> VirtualHostSpec:
    more = {} if policy is None else policy.route
    route = RouteSpec(name=case.name, backends=(BackendSpec(cluster=case.name),), **more)
    return VirtualHostSpec(name=case.name, domains=(f"{case.name}:80",), routes=(route,))
