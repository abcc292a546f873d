"""How to reach the services of a local mesh from outside of it."""

import io
from pathlib import Path

from msgspec.structs import replace

from control_plane.cli.directions import directions
from control_plane.cli.local.allocation import Ports, allocate
from control_plane.cli.local.desired import desire
from control_plane.cli.local.logs import Console
from control_plane.cli.local.plane import LocalControlPlane
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.workload import LocalWorkload
from control_plane.placement import Placements
from control_plane.resources.fields import Metadata
from control_plane.resources.gateway_api import (
    BackendRef,
    ConnectionRule,
    ParentRef,
    TLSRoute,
    TLSRouteSpec,
)
from control_plane.resources.model import Workload
from tests.control_plane.cli.local.machine import Machine
from tests.control_plane.cli.local.meshes import service, state, workload

SERVICES = [service("shop", 80), service("maps", 8080, namespace="blue")]


async def started(folder: Path, *declared: Workload) -> dict[str, LocalWorkload]:
    mesh, ports = state(*declared), Ports(Machine().reserve)
    placed = allocate(mesh.workloads, SERVICES, Placements(), ports).workloads
    directory, console = RunDirectory(folder), Console(io.StringIO())

    def no_group(_group: int, _alive: bool) -> None: ...

    plane = LocalControlPlane(directory, [], "td", console, no_group, ports)
    made = {
        name: LocalWorkload(
            unit, placed[name], (), trust_domain="td", plane=plane, directory=directory,
            console=console, on_group=no_group, ports=ports,
        )
        for name, unit in desire(mesh, "td").items()
    }  # fmt: skip
    for one in made.values():
        await one.stop()
    await plane.process.stop()
    directory.release()
    return made


async def test_a_workload_without_an_app_is_the_door(tmp_path: Path) -> None:
    """By its local ports; a service of another namespace by its HTTP proxy."""
    mesh = await started(tmp_path, workload("app", 8080, command=["x"]), workload("door"))
    place = mesh["default/door"].placement

    assert directions(mesh, SERVICES) == (
        "default/door",
        [
            (
                "blue/maps:8080",
                f"curl -x http://127.0.0.1:{place.outbound_port} http://maps.blue:8080/",
            ),
            ("default/shop:80", f"curl http://127.0.0.1:{place.service_ports['default/shop:80']}/"),
        ],
    )


async def test_what_is_no_http_is_not_told_to_curl(tmp_path: Path) -> None:
    """A port speaks what its `appProtocol` says, and the command fits; so in a namespace."""
    db, calls_of = service("db", 5432, 9000), {5432: "postgresql", 9000: "grpc"}
    ports = tuple(replace(one, app_protocol=calls_of[one.port]) for one in db.spec.ports)
    db = replace(db, spec=replace(db.spec, ports=ports))
    mesh = await started(tmp_path, workload("app", 8080, command=["x"]))
    place = mesh["default/app"].placement

    assert directions(mesh, [db])[1] == [
        ("default/db:5432", f"curl -p -x http://127.0.0.1:{place.outbound_port} telnet://db:5432"),
        ("default/db:9000", f"curl -x http://127.0.0.1:{place.outbound_port} http://db:9000/"),
    ]

    mesh["default/app"].namespace = "mesh-1"
    assert directions(mesh, [db])[1] == [
        ("default/db:5432", "ip netns exec mesh-1 nc db 5432"),
        ("default/db:9000", "ip netns exec mesh-1 grpcurl -plaintext db:9000 SERVICE/METHOD"),
    ]


async def test_a_local_port_takes_what_curl_does_not_speak(tmp_path: Path) -> None:
    """Any client of the protocol connects to it."""
    shop = service("shop", 80)
    port = replace(shop.spec.ports[0], app_protocol="tcp")
    mesh = await started(tmp_path, workload("app", 8080, command=["x"]))
    local = mesh["default/app"].placement.service_ports["default/shop:80"]
    shop = replace(shop, spec=replace(shop.spec, ports=(port,)))

    assert directions(mesh, [shop])[1] == [("default/shop:80", f"nc 127.0.0.1 {local}")]


async def test_tls_of_the_apps_own_is_called_by_a_name_that_a_route_knows(tmp_path: Path) -> None:
    """Another name, or none, is refused."""
    route = TLSRoute(
        api_version="gateway.networking.k8s.io/v1",
        kind="TLSRoute",
        metadata=Metadata(name="shop", namespace="default"),
        spec=TLSRouteSpec(
            parent_refs=(ParentRef(group="", kind="Service", name="shop"),),
            hostnames=("shop.example",),
            rules=(ConnectionRule(backend_refs=(BackendRef(name="shop", port=80),)),),
        ),
    )
    mesh = await started(tmp_path, workload("door"))
    mesh["default/door"].namespace = "mesh-1"

    said = "ip netns exec mesh-1 openssl s_client -connect shop:80 -servername shop.example"
    assert directions(mesh, SERVICES[:1], [route])[1] == [("default/shop:80", said)]


async def test_else_any_other_is(tmp_path: Path) -> None:
    """As its app would call: by the HTTP proxy and the service's name."""
    mesh = await started(tmp_path, workload("app", 8080, command=["x"]))
    door, calls = directions(mesh, SERVICES[:1])

    assert door == "default/app"
    port = mesh[door].placement.outbound_port
    assert calls == [("default/shop:80", f"curl -x http://127.0.0.1:{port} http://shop/")]


def test_nothing_can_be_reached_in_an_empty_mesh() -> None:
    """Nor is anything said."""
    assert directions({}, SERVICES) == ("", [])


async def test_in_a_namespace_any_client_will_do(tmp_path: Path) -> None:
    """One enters it; names are known there, and there is no proxy to know of."""
    mesh = await started(tmp_path, workload("door"))
    mesh["default/door"].namespace = "mesh-1a2b3c-door"

    assert directions(mesh, SERVICES) == (
        "default/door",
        [
            ("blue/maps:8080", "ip netns exec mesh-1a2b3c-door curl http://maps.blue:8080/"),
            ("default/shop:80", "ip netns exec mesh-1a2b3c-door curl http://shop/"),
        ],
    )
