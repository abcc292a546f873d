"""Run a local mesh until somebody has had enough.  The programs are stand-ins."""

import asyncio
import io
import os
import signal
import sys
from pathlib import Path

import pytest

from control_plane.cli.local import plane as plane_module
from control_plane.cli.local.logs import Console
from control_plane.cli.local.run import for_seconds, run
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.supervisor import BrokenFilesError, Supervisor
from tests.control_plane.cli.local import fake_programs
from tests.control_plane.cli.local.children import lives


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plane_module, "own_program", lambda *words: (sys.executable, fake_programs.__file__, *words)
    )


async def test_it_stops_when_the_work_is_done(tmp_path: Path) -> None:
    """The work sees the running mesh; afterwards the control plane is gone."""
    directory = RunDirectory(tmp_path / "run")
    pids: list[int | None] = []

    async def work(supervisor: Supervisor) -> None:
        pids.append(supervisor.plane.process.pid)
        await for_seconds(0)

    (tmp_path / "files").mkdir()
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

    (tmp_path / "files").mkdir()
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
