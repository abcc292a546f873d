"""
Where each workload runs: the addresses and ports that nobody writes by hand.

In a cluster, pod addresses and Istio's well-known ports make this trivial.  On one machine many
workloads share an address, so `meshctl up` gives each its own free ports, writes them to one
JSON file beside the mesh's state, and the control plane reads that file like any other source.
Where each workload has a network namespace of its own, and its traffic is captured, it is as in a
cluster, and the file holds addresses instead.
"""

from pathlib import Path

from msgspec import Struct

from meshproxy.contract import wire
from meshproxy.contract.spec import Port


class Placement(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Attributes:
        address: Address of the workload, where peers reach its sidecar.
        ipv6: The same in IPv6; None where there is none.
        captured: Connections reach the sidecar by redirection, whatever they were meant for: it
            listens on two ports for all of them, and peers dial the workload's own ports.
        app_address: Where the sidecar reaches the app; None for `address`.
        app_ports: Workload port → the port on which the app really listens.
        inbound_ports: Workload port → the port on which the sidecar listens for peers.
        outbound_port: The sidecar's HTTP proxy for the app, or where the app is captured to.
        inbound_port: Where the app's callers are captured to.
        service_ports: ``namespace/service:port`` → local port that leads to that service.
        admin_port: The sidecar's metrics and health.
    """

    address: str = "127.0.0.1"
    ipv6: str | None = None
    captured: bool = False
    app_address: str | None = None
    app_ports: dict[Port, Port] = {}
    inbound_ports: dict[Port, Port] = {}
    outbound_port: Port = 15001
    inbound_port: Port = 15006
    service_ports: dict[str, Port] = {}
    admin_port: Port = 15000


class Placements(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    All placements of a mesh.

    Attributes:
        workloads: By ``namespace/workload``.
        service_addresses: ``namespace/service`` → its virtual addresses, IPv4 and IPv6.
    """

    workloads: dict[str, Placement] = {}
    service_addresses: dict[str, tuple[str, ...]] = {}


def read(path: Path) -> Placements:
    """
    Read a placements file; a missing file is an empty mesh.

    Raises:
        ContractError: The content is not what it should be.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Placements()
    return wire.decode(data, Placements)
