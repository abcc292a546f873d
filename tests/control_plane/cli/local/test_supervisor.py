"""A local mesh as one thing: start it, follow its files, stop it.  The programs are stand-ins."""

import asyncio
import io
import json
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.cli import processes
from control_plane.cli.errors import CommandError
from control_plane.cli.local import backoff
from control_plane.cli.local import plane as plane_module
from control_plane.cli.local import supervisor as supervisor_module
from control_plane.cli.local import workload as workload_module
from control_plane.cli.local.logs import Console
from control_plane.cli.local.plane import StartError
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.supervisor import BrokenFilesError, Supervisor
from control_plane.sources.files import FilesSource
from control_plane.store import Store
from tests.control_plane.cli.local import fake_programs
from tests.control_plane.cli.local.children import eventually, lives

WORKLOAD = """
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata:
  name: {name}
spec:
  run:
    command: ["sh", "-c", "echo {word}; exec sleep 60"]
"""


def fake(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, fake_programs.__file__, module, *arguments)


def read(path: str) -> str:
    return Path(path).read_text()


def mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


class Mesh:
    """A supervisor over a folder of files, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.out = io.StringIO()
        self.files = folder / "files"
        self.files.mkdir()
        self.directory = RunDirectory(folder / "run")
        store = Store()
        self.supervisor = Supervisor(
            [self.files],
            self.directory,
            FilesSource([self.files], store, self.directory.accepted),
            store,
            Console(self.out),
        )

    def write(self, name: str, word: str = "hello") -> None:
        (self.files / f"{name}.yaml").write_text(WORKLOAD.format(name=name, word=word))

    def said(self, text: str) -> bool:
        return text in self.out.getvalue()

    def pids(self) -> dict[str, int | None]:
        return {
            process.name: process.pid
            for workload in self.supervisor.workloads.values()
            for process in workload.processes()
        }


@pytest.fixture
async def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Mesh]:
    monkeypatch.setattr(plane_module, "own_program", fake)
    monkeypatch.setattr(workload_module, "own_program", fake)
    mesh = Mesh(tmp_path)
    yield mesh
    await mesh.supervisor.stop()
    mesh.directory.release()


async def test_a_mesh_starts_and_stops_whole(mesh: Mesh) -> None:
    """Control plane, sidecars, apps; afterwards no process and no context is left."""
    mesh.write("a")
    mesh.write("b")
    await mesh.supervisor.start()
    await mesh.supervisor.settled()
    await eventually(lambda: mesh.said("a/app") and mesh.said("b/app"))
    pids = [pid for pid in mesh.pids().values() if pid is not None]
    context = json.loads(mesh.directory.context.read_text())

    await mesh.supervisor.stop()

    assert len(pids) == 4
    assert not any(lives(pid) for pid in pids)
    assert context["pid"] == os.getpid()
    assert read(context["token_file"]) == "secret"


async def test_a_sidecar_gets_a_bootstrap_and_a_token(mesh: Mesh) -> None:
    """Both for its owner's eyes only; the token is the one that the control plane gave for it."""
    mesh.write("a")
    await mesh.supervisor.start()
    await mesh.supervisor.settled()
    bootstrap = mesh.directory.bootstrap("default/a")
    said = json.loads(bootstrap.read_text())
    token = said["control_plane"]["token"]

    assert said["workload"] == "default/a"
    assert said["identity"] == "spiffe://mesh.local/ns/default/sa/a"
    assert read(said["control_plane"]["roots"]) == "the roots"
    assert read(token) == "token of default/a"
    assert mode(token) == mode(bootstrap) == 0o600


async def test_files_are_followed(mesh: Mesh) -> None:
    """New workloads start, removed ones stop, changed ones restart, and nothing else does."""
    for name in ("same", "changed", "removed"):
        mesh.write(name)
    await mesh.supervisor.start()
    await mesh.supervisor.settled()
    await eventually(lambda: all(mesh.pids().values()))
    before = mesh.pids()
    following = asyncio.create_task(mesh.supervisor.follow())
    await asyncio.sleep(0)

    mesh.write("new")
    mesh.write("changed", word="goodbye")
    (mesh.files / "removed.yaml").unlink()
    (mesh.files / "other.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
    )
    await eventually(lambda: mesh.said("goodbye") and "default/removed" not in mesh.pids())
    await eventually(lambda: mesh.pids().get("new/app"))
    after = mesh.pids()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    unchanged = ("same/app", "same/proxy", "changed/proxy")
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert after["changed/app"] != before["changed/app"]
    assert "removed/app" not in after
    assert before["removed/app"] is not None
    assert not lives(before["removed/app"])


async def test_a_broken_edit_changes_nothing(mesh: Mesh) -> None:
    """It is said where and what, and said when it is mended."""
    mesh.write("a")
    await mesh.supervisor.start()
    await mesh.supervisor.settled()
    await eventually(lambda: all(mesh.pids().values()))
    before = mesh.pids()
    following = asyncio.create_task(mesh.supervisor.follow())
    await asyncio.sleep(0)

    (mesh.files / "a.yaml").write_text("kind: Workload\n  name: broken")
    await eventually(lambda: mesh.said("refused, the old version stays in force: "))
    mesh.write("a")
    await eventually(lambda: mesh.said("all findings are mended"))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    assert mesh.said("a.yaml:2")
    assert mesh.pids() == before


async def test_a_refusal_is_said_once_and_its_end_too(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line on the terminal, with the reason: a mesh that starts is not a mesh that works."""
    monkeypatch.setattr(supervisor_module, "WATCH_EVERY", 0.01)
    mesh.write("a")
    await mesh.supervisor.start()
    following = asyncio.create_task(mesh.supervisor.follow())
    proxies = mesh.supervisor.plane.state / "proxies.json"

    def tell(state: str, path: str = "", reason: str = "") -> None:
        said = [{"workload": "default/a", "state": state, "path": path, "reason": reason}]
        mesh.directory.write(proxies, json.dumps(said).encode())

    refusal = "default/a refused its configuration: listener/out port: address in use\n"
    tell("REFUSED", "listener/out port", "address in use")
    await eventually(lambda: mesh.said(refusal))
    tell("STALE")
    tell("SYNCED")
    await eventually(lambda: mesh.said("default/a obeys its configuration again"))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    assert mesh.out.getvalue().count(refusal) == 1


async def test_a_damaged_memory_of_ports_is_no_obstacle(mesh: Mesh) -> None:
    """It is said, and new ports are taken."""
    mesh.directory.write(mesh.directory.placements, b'{"workloads": 3}')
    mesh.write("a")

    await mesh.supervisor.start()

    assert mesh.said("placements.json is damaged, new ports are taken: ")
    assert "default/a" in json.loads(mesh.directory.placements.read_text())["workloads"]


async def test_an_empty_folder_is_no_mesh(mesh: Mesh) -> None:
    """Most likely it is the wrong folder; it is named."""
    with pytest.raises(CommandError, match=f"no resources found in {mesh.files}"):
        await mesh.supervisor.start()


async def test_how_the_processes_are_is_written_down(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For `meshctl status`: an app that crashes at each start is in trouble, its sidecar is not."""
    monkeypatch.setattr(supervisor_module, "OBSERVE_EVERY", 0.01)
    monkeypatch.setattr(backoff, "FIRST", 0.02)
    mesh.write("a", word="bye; exit 3")
    await mesh.supervisor.start()
    following = asyncio.create_task(mesh.supervisor.follow())
    await eventually(lambda: any("times in a row" in problem for problem in problems(mesh)))
    [problem] = problems(mesh)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    assert problem.startswith("a/app ended with exit code 3, ")
    assert problem.endswith(f"its log: {mesh.directory.logs / 'a.app.log'}")


def problems(mesh: Mesh) -> list[str]:
    report = processes.of(mesh.supervisor.plane.context)
    return [problem for one in report.processes if (problem := one.problem(time.time()))]


async def test_broken_files_start_nothing(mesh: Mesh) -> None:
    """The findings are what `meshctl validate` prints."""
    (mesh.files / "bad.yaml").write_text("apiVersion: v1\nkind: Servise\nmetadata: {name: s}\n")

    with pytest.raises(BrokenFilesError, match=r"bad\.yaml:2: .*Servise"):
        await mesh.supervisor.start()

    assert mesh.supervisor.workloads == {}


async def test_a_control_plane_that_does_not_start_says_why(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error carries its last lines."""
    monkeypatch.setattr(
        plane_module, "own_program", lambda *_: ("sh", "-c", "echo no port; exit 1")
    )
    mesh.write("a")

    with pytest.raises(StartError, match=r"control plane did not start; it said:\n    no port"):
        await mesh.supervisor.start()


async def test_a_killed_control_plane_comes_back(mesh: Mesh) -> None:
    """On the same ports, while sidecars and apps go on undisturbed."""
    mesh.write("a")
    await mesh.supervisor.start()
    await mesh.supervisor.settled()
    await eventually(lambda: all(mesh.pids().values()))
    before = mesh.pids()
    process = mesh.supervisor.plane.process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await eventually(lambda: process.failures == 1 and process.pid is not None)

    assert mesh.said("control-plane │ was ended by SIGKILL; next try in 1 s")
    assert mesh.pids() == before
