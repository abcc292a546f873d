"""The control plane of a local mesh: its configuration and what is asked of it."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.client import Client
from control_plane.cli.local import plane as plane_module
from control_plane.cli.local.allocation import Ports
from control_plane.cli.local.logs import Console
from control_plane.cli.local.plane import LocalControlPlane, own_environment
from control_plane.cli.local.process import NotReadyError
from control_plane.cli.local.rundir import RunDirectory
from meshproxy.interpreter import SAID
from tests.control_plane.cli.local.machine import Machine


def local_plane(directory: RunDirectory) -> LocalControlPlane:
    return LocalControlPlane(
        directory,
        [Path("mesh")],
        "td",
        Console(io.StringIO()),
        lambda _group, _alive: None,
        Ports(Machine().reserve),
    )


async def test_it_is_told_where_everything_is(tmp_path: Path) -> None:
    """All paths are absolute: its working directory is not the user's."""
    directory = RunDirectory(tmp_path)
    plane = local_plane(directory)

    command = await plane._prepare()
    config = json.loads(directory.control_plane.read_text())
    await plane.process.stop()
    directory.release()

    assert command.arguments[-3:-1] == ("--config", str(directory.control_plane))
    assert config == {
        "state": str(tmp_path / "state" / "td" / "control-plane"),
        "files": [str(Path.cwd() / "mesh")],
        "placements": str(directory.placements),
        "discovery": {"address": "127.0.0.1", "port": plane.discovery},
        "api": {"address": "127.0.0.1", "port": plane.api},
    }


async def test_its_ports_are_kept(tmp_path: Path) -> None:
    """A mesh that is started again is found where it was; sidecars know the port by heart."""
    directory = RunDirectory(tmp_path)
    first = local_plane(directory)
    await first._prepare()
    second = local_plane(directory)
    for plane in (first, second):
        await plane.process.stop()
    directory.release()

    assert (second.discovery, second.api) == (first.discovery, first.api)
    assert first.discovery != first.api


async def test_a_token_that_cannot_be_had_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while; then the sidecar's start is put off, with the reason."""
    monkeypatch.setattr(plane_module, "TOKEN_WITHIN", 0.1)
    directory = RunDirectory(tmp_path)
    plane = local_plane(directory)

    with pytest.raises(NotReadyError, match=r"no join token: nothing listens on 127\.0\.0\.1"):
        await plane.token("default/shop")
    await plane.process.stop()
    directory.release()


async def test_with_a_token_come_the_roots_of_that_moment(tmp_path: Path) -> None:
    """They may have been replaced since the mesh was started."""
    directory = RunDirectory(tmp_path)
    plane = local_plane(directory)
    asked: list[str] = []

    class Answering(Client):
        def text(self, path: str) -> str:
            asked.append(path)
            return "new roots"

        def post(self, path: str, body: object) -> Any:
            asked.append(path)
            return {"token": str(body)}

    plane.client = Answering(plane.context)
    assert await plane.token("default/shop") == "{'workload': 'default/shop'}"
    assert directory.roots.read_text() == "new roots"
    assert asked == ["/api/v1/tokens", "/api/v1/roots"]
    await plane.process.stop()
    directory.release()


def test_our_programs_are_found_uninstalled() -> None:
    """In a checkout nothing is on the path; what the user has there stays behind ours."""
    path = own_environment({"PYTHONPATH": "/theirs"})["PYTHONPATH"].split(os.pathsep)

    assert (Path(path[0]) / "meshproxy" / "__init__.py").exists()
    assert path[1:] == ["/theirs"]


def test_what_there_is_to_say_of_the_interpreter_is_not_said_by_each_process() -> None:
    """Whoever starts them has said it, and they are told so."""
    assert own_environment({})[SAID]
