"""One workload of a local mesh: what its app and its sidecar are started with."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.cli.local import workload as workload_module
from control_plane.cli.local.allocation import Ports, ports_of
from control_plane.cli.local.desired import desire
from control_plane.cli.local.logs import Console
from control_plane.cli.local.plane import LocalControlPlane
from control_plane.cli.local.process import NotReadyError
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.workload import LocalWorkload
from control_plane.placement import Placement
from tests.control_plane.cli.local.machine import Machine
from tests.control_plane.cli.local.meshes import state, workload

PLACEMENT = Placement(app_ports={8080: 20001}, outbound_port=20002, admin_port=1)
MACHINE = Machine()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[LocalWorkload]:
    directory = RunDirectory(tmp_path)
    console = Console(io.StringIO())
    plane = LocalControlPlane(
        directory, [], "td", console, lambda _group, _alive: None, Ports(Machine().reserve)
    )
    declared = workload("shop", 8080, command=["serve", "--port", "$(PORT)"], version="v7")
    ports = Ports(MACHINE.reserve)
    assert all(ports.keep(port) for port in ports_of(PLACEMENT))
    local = LocalWorkload(
        desire(state(declared, file=tmp_path / "mesh.yaml"), "td")["default/shop"],
        PLACEMENT,
        [],
        trust_domain="td",
        plane=plane,
        directory=directory,
        console=console,
        on_group=lambda _group, _alive: None,
        ports=ports,
    )
    yield local
    ports.retain(())
    await local.stop()
    await plane.process.stop()
    directory.release()


async def test_the_bootstrap_says_who_and_where(
    shop: LocalWorkload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a certificate in its state, a sidecar gets no token: none lies about unused."""
    monkeypatch.setattr(workload_module, "has_certificate", lambda *_: True)

    command = await shop._prepare_sidecar()
    said = json.loads((tmp_path / "bootstrap" / "default" / "shop.json").read_text())

    assert command.arguments[-3:-1] == (
        "--bootstrap",
        str(tmp_path / "bootstrap/default/shop.json"),
    )
    assert said.pop("control_plane")["token"] is None
    assert said == {
        "workload": "default/shop",
        "identity": "spiffe://td/ns/default/sa/shop",
        "version": "v7",
        "state": str(tmp_path / "state/td/default/shop"),
        "admin": {"address": "127.0.0.1", "port": 1},
        "drain_seconds": 10,
    }


async def test_the_apps_command_knows_its_port(
    shop: LocalWorkload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """References are expanded, and it runs in the folder of the file that declares it."""

    async def ready(_self: LocalWorkload) -> bool:
        return True

    monkeypatch.setattr(LocalWorkload, "is_ready", ready)

    command = await shop._prepare_app()

    assert command.arguments == ("serve", "--port", "20001")
    assert command.directory == tmp_path
    assert command.environment["HTTP_PROXY"] == "http://127.0.0.1:20002"
    assert MACHINE.held == {20002, 1}, "only the app's own port is released for it"


async def test_the_app_waits_for_its_sidecar(
    shop: LocalWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not ready puts the app's start off and says where to look."""
    monkeypatch.setattr(workload_module, "READY_WITHIN", 0.05)

    with pytest.raises(NotReadyError, match=r"http://127\.0\.0\.1:1/healthz/ready says why"):
        await shop._prepare_app()
