"""Look after the processes of a local mesh."""

import asyncio
import io
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.cli import processes
from control_plane.cli.local import observer as observer_module
from control_plane.cli.local.allocation import Ports
from control_plane.cli.local.desired import desire
from control_plane.cli.local.logs import Console
from control_plane.cli.local.observer import Observer, accepts
from control_plane.cli.local.plane import LocalControlPlane
from control_plane.cli.local.process import Command, ManagedProcess
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.workload import LocalWorkload
from control_plane.placement import Placement
from tests.control_plane.cli.local.children import eventually
from tests.control_plane.cli.local.machine import Machine
from tests.control_plane.cli.local.meshes import state, workload


@pytest.fixture
def port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        number: int = holder.getsockname()[1]
        return number


@pytest.fixture
async def shop(tmp_path: Path, port: int) -> AsyncIterator[tuple[LocalWorkload, ManagedProcess]]:
    """A workload whose app sleeps, and the control plane, which does not run."""
    directory = RunDirectory(tmp_path / "run")
    console = Console(io.StringIO())
    ports = Ports(Machine().reserve)

    def no_group(_group: int, _alive: bool) -> None: ...

    plane = LocalControlPlane(directory, [], "td", console, no_group, ports)
    local = LocalWorkload(
        desire(state(workload("shop", 8080, command=["x"])), "td")["default/shop"],
        Placement(app_ports={8080: port}),
        (),
        trust_domain="td",
        plane=plane,
        directory=directory,
        console=console,
        on_group=no_group,
        ports=ports,
    )

    async def prepare() -> Command:
        return Command(("sleep", "60"), os.environ, tmp_path)

    await local.stop_app()
    local.app = ManagedProcess("shop/app", prepare, console, tmp_path / "app.log", grace=1)
    yield local, plane.process
    await local.stop()
    await plane.process.stop()
    directory.release()


async def test_a_port_that_nobody_listens_on_is_told_once(
    shop: tuple[LocalWorkload, ManagedProcess],
    port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the report at once, on the terminal when it takes long; and when it is over."""
    monkeypatch.setattr(observer_module, "LISTENS_AFTER", 0.0)
    local, plane = shop
    assert local.app is not None
    out = io.StringIO()
    directory = local._directory
    observer = Observer(directory, Console(out))
    local.app.start()
    await eventually(lambda: local.app is not None and local.app.pid)
    for _ in range(3):
        report = await observer.look(plane, {"default/shop": local}, ["odd"])

    missing = {one.name: one.missing for one in report.processes}
    assert missing == {"control-plane": (), "shop/app": (f"$PORT ({port})",), "shop/proxy": ()}
    assert report.warnings == ("odd",)
    written = json.loads(directory.processes.read_text())
    assert [one["name"] for one in written["processes"]] == [*missing]
    assert out.getvalue() == f"shop/app │ does not listen on its $PORT ({port}) yet\n"

    connections: list[object] = []

    def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", port)
    async with server:
        for _ in range(3):
            report = await observer.look(plane, {"default/shop": local}, ())
        await eventually(lambda: connections)

    assert processes.of(local._plane.context) == report
    assert all(not one.missing for one in report.processes)
    assert out.getvalue().endswith("shop/app │ listens now\n")
    assert len(connections) == 1


async def test_accepts(port: int) -> None:
    """A port is open or not."""
    assert not await accepts("127.0.0.1", port)
