"""Run a local mesh until somebody has had enough.  The programs are stand-ins."""

import asyncio
import io
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from control_plane.cli.local import plane as plane_module
from control_plane.cli.local.logs import Console
from control_plane.cli.local.run import allow_descriptors, for_seconds, run
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.supervisor import BrokenFilesError, Supervisor
from tests.control_plane.cli.local import fake_programs
from tests.control_plane.cli.local.children import LIMIT, lives


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plane_module, "own_program", lambda *words: (sys.executable, fake_programs.__file__, *words)
    )


def write_mesh(folder: Path) -> None:
    """A mesh without workloads."""
    folder.mkdir()
    (folder / "mesh.yaml").write_text(
        "apiVersion: meshproxy.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {}\n"
    )


async def test_it_stops_when_the_work_is_done(tmp_path: Path) -> None:
    """The work sees the running mesh; afterwards the control plane is gone."""
    directory = RunDirectory(tmp_path / "run")
    pids: list[int | None] = []

    async def work(supervisor: Supervisor) -> None:
        pids.append(supervisor.plane.process.pid)
        await for_seconds(0)

    write_mesh(tmp_path / "files")
    await run([tmp_path / "files"], directory, Console(io.StringIO()), work)
    directory.release()

    assert pids[0] is not None
    assert not lives(pids[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_it_stops_when_it_is_asked_to(tmp_path: Path, number: signal.Signals) -> None:
    """The work is told by its cancellation, so that it can say its last word."""
    directory = RunDirectory(tmp_path / "run")
    last_words: list[str] = []

    async def work(_supervisor: Supervisor) -> None:
        os.kill(os.getpid(), number)
        try:
            await for_seconds(None)
        except asyncio.CancelledError:
            last_words.append("bye")
            raise

    write_mesh(tmp_path / "files")
    async with asyncio.timeout(10):
        await run([tmp_path / "files"], directory, Console(io.StringIO()), work)
    directory.release()

    assert last_words == ["bye"]


async def test_broken_files_are_not_run(tmp_path: Path) -> None:
    """The work never begins."""
    directory = RunDirectory(tmp_path / "run")
    (tmp_path / "bad.yaml").write_text("kind: [")

    async def work(_supervisor: Supervisor) -> None:
        raise AssertionError

    with pytest.raises(BrokenFilesError):
        await run([tmp_path / "bad.yaml"], directory, Console(io.StringIO()), work)
    directory.release()


def test_a_mesh_of_many_ports_may_open_many_files() -> None:
    """Up to what the hard limit allows; a limit that is high enough stays as it is."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        allow_descriptors(600)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, before[1])
        allow_descriptors(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_output_that_nobody_reads_ends_the_mesh(tmp_path: Path) -> None:
    """As after `meshctl up … | head -1`: in good order, not by an exception out of a callback."""
    reading, writing = os.pipe()
    os.close(reading)
    directory = RunDirectory(tmp_path / "run")
    write_mesh(tmp_path / "files")
    with os.fdopen(writing, "w") as nobody:
        console = Console(nobody)

        async def work(_supervisor: Supervisor) -> None:
            console.announce("hello")
            await for_seconds(None)

        async with asyncio.timeout(LIMIT):
            await run([tmp_path / "files"], directory, console, work)
        directory.release()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # what is buffered still can leave
