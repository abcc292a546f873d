"""One child process: started, logged, restarted with backoff, stopped with its whole group."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from control_plane.cli.local import backoff
from control_plane.cli.local.logs import Console
from control_plane.cli.local.process import Command, ManagedProcess, NotReadyError, User
from tests.control_plane.cli.local.children import eventually, lives, python
from tests.helpers.namespaces import Namespace, needs_namespaces

SLEEP = "import time\nprint('up')\ntime.sleep(60)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST", 0.02)


class Child:
    """A managed process and what is seen of it."""

    def __init__(
        self, prepare: Callable[[], Awaitable[Command]], folder: Path, grace: float
    ) -> None:
        self.out = io.StringIO()
        self.groups: list[tuple[int, bool]] = []
        self.process = ManagedProcess(
            "app",
            prepare,
            Console(self.out),
            folder / "app.log",
            grace=grace,
            on_group=lambda group, alive: self.groups.append((group, alive)),
        )

    def said(self, text: str) -> bool:
        return text in self.out.getvalue()


def child(code: str, folder: Path, grace: float = 5.0) -> Child:
    async def prepare() -> Command:
        return python(code, folder)

    return Child(prepare, folder, grace)


async def test_it_runs_until_it_is_stopped(tmp_path: Path) -> None:
    """Its lines are shown while it lives; afterwards nothing is left of it."""
    app = child(SLEEP, tmp_path)
    app.process.start()
    await eventually(lambda: app.said("app │ up"))
    pid = app.process.pid
    assert pid is not None

    await app.process.stop()

    assert not lives(pid)
    assert app.groups == [(pid, True), (pid, False)]
    assert (tmp_path / "app.log").read_text() == "up\n"


async def test_one_that_ends_is_started_again(tmp_path: Path) -> None:
    """Each end is said in a line that names the exit code and the next try."""
    app = child("import sys; print('bye'); sys.exit(3)", tmp_path)
    app.process.start()
    await eventually(lambda: app.process.failures >= 3)
    await app.process.stop()

    assert app.said("app │ ended with exit code 3; next try in 0.02 s")
    assert app.said("next try in 0.04 s")


async def test_one_that_was_killed_is_started_again(tmp_path: Path) -> None:
    """The signal is named."""
    app = child(SLEEP, tmp_path)
    app.process.start()
    await eventually(lambda: app.said("up"))
    assert app.process.pid is not None
    os.kill(app.process.pid, signal.SIGKILL)
    await eventually(lambda: app.out.getvalue().count("app │ up") == 2)
    await app.process.stop()

    assert app.said("app │ was ended by SIGKILL")


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After the grace, with a word about it."""
    ignore = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}"
    app = child(ignore, tmp_path, grace=0.2)
    app.process.start()
    await eventually(lambda: app.said("up"))
    pid = app.process.pid
    assert pid is not None

    await app.process.stop()

    assert not lives(pid)
    assert app.said("app │ did not stop within 0.2 s: killed")


async def test_children_of_the_child_end_with_it(tmp_path: Path) -> None:
    """Also when they would outlive it: the whole group is stopped."""
    grandchild = (
        "import subprocess, time\n"
        "print('pid', subprocess.Popen(['sleep', '60']).pid)\n"
        "time.sleep(60)"
    )
    app = child(grandchild, tmp_path)
    app.process.start()
    await eventually(lambda: app.process.last_lines)
    pid = int(app.process.last_lines[0].split()[1])
    assert lives(pid)

    await app.process.stop()

    assert not lives(pid)


async def test_what_a_crashed_child_leaves_behind_is_ended(tmp_path: Path) -> None:
    """An orphan would hold the port that the next start needs."""
    app = child("import subprocess\nprint('pid', subprocess.Popen(['sleep', '60']).pid)", tmp_path)
    app.process.start()
    await eventually(lambda: app.process.failures)
    pid = int(app.process.last_lines[0].split()[1])
    await eventually(lambda: not lives(pid))
    await app.process.stop()


async def test_a_child_that_cannot_start_yet_waits_for_its_turn(tmp_path: Path) -> None:
    """What it waits for is said, and it starts when that is there."""
    tries = 0

    async def prepare() -> Command:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise NotReadyError("no token")
        return python(SLEEP, tmp_path)

    app = Child(prepare, tmp_path, 5.0)
    app.process.start()
    await eventually(lambda: app.said("app │ up"))
    await app.process.stop()

    assert app.said("app │ cannot start: no token; next try in 0.02 s")


async def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With its name, and it is tried again: somebody may make it."""

    async def prepare() -> Command:
        return python(SLEEP, tmp_path / "missing")

    app = Child(prepare, tmp_path, 5.0)
    app.process.start()
    await eventually(lambda: app.process.failures)
    await app.process.stop()

    assert app.said(f"app │ cannot start in {tmp_path / 'missing'}: No such file or directory")


async def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    """With the file and why, and it is tried again: somebody may mend it."""
    tries = 0

    async def prepare() -> Command:
        nonlocal tries
        tries += 1
        if tries < 3:
            (tmp_path / "missing" / "bootstrap.json").write_text("{}")
        return python(SLEEP, tmp_path)

    app = Child(prepare, tmp_path, 5.0)
    app.process.start()
    await eventually(lambda: app.said("app │ up"))
    await app.process.stop()

    assert app.said(
        f"app │ cannot start: {tmp_path}/missing/bootstrap.json: No such file or directory;"
        " next try in 0.02 s"
    )


async def test_a_mistake_of_ours_is_said(tmp_path: Path) -> None:
    """The process will not come; who waits for it must know why."""

    async def prepare() -> Command:
        raise KeyError("catalog")

    app = Child(prepare, tmp_path, 5.0)
    app.process.start()
    await eventually(lambda: app.said("app │ cannot start: KeyError('catalog')"))
    with pytest.raises(KeyError):
        await app.process.stop()


async def test_stop_ends_a_wait(tmp_path: Path) -> None:
    """Between two tries, and while it is being prepared, there is nothing to wait for."""

    async def prepare() -> Command:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    app = Child(prepare, tmp_path, 60.0)
    app.process.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await app.process.stop()
    await app.process.stop()  # a second time is harmless


async def test_stop_right_after_start_leaves_nothing(tmp_path: Path) -> None:
    """Whatever moment of the start it meets, no child stays unknown."""
    for turns in range(6):
        app = child(SLEEP, tmp_path)
        app.process.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await app.process.stop()
        assert all((pid, False) in app.groups for pid, alive in app.groups if alive)


@pytest.mark.skipif(sys.platform != "linux", reason="found through /proc")
async def test_a_daemon_ends_with_its_child(tmp_path: Path) -> None:
    """In a session of its own it is out of the group, but not out of the mesh."""
    daemon = (
        "import subprocess, time\n"
        "print('pid', subprocess.Popen(['sleep', '60'], start_new_session=True).pid)\n"
    )
    crashed, stopped = child(daemon, tmp_path), child(daemon + "time.sleep(60)", tmp_path)
    for app in (crashed, stopped):
        app.process.start()
    await eventually(lambda: crashed.process.failures and stopped.process.last_lines)
    pids = [int(app.process.last_lines[0].split()[1]) for app in (crashed, stopped)]

    await eventually(lambda: not lives(pids[0]))
    assert lives(pids[1])
    for app in (crashed, stopped):
        await app.process.stop()
    # One that is about to be a zombie has no environment any more, so it is known by nobody.
    await eventually(lambda: not lives(pids[1]))


SUPERVISOR = """
import asyncio, sys, os
from pathlib import Path
from control_plane.cli.local.logs import Console
from control_plane.cli.local.process import Command, ManagedProcess

async def main():
    async def prepare():
        return Command(("sleep", "60"), os.environ, Path.cwd())
    process = ManagedProcess("app", prepare, Console(), Path(sys.argv[1]), grace=1)
    process.start()
    while process.pid is None:
        await asyncio.sleep(0.01)
    print(process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_a_supervisor_that_is_killed_leaves_no_orphan(tmp_path: Path) -> None:
    """SIGKILL gives it no chance to clean up; the kernel does."""
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(tmp_path / "app.log"), stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pid = int(await supervisor.stdout.readline())
    assert lives(pid)

    supervisor.kill()
    await supervisor.wait()

    await eventually(lambda: not lives(pid))


@needs_namespaces
async def test_in_a_network_namespace_as_another_user(tmp_path: Path) -> None:
    """It is in the namespace, and somebody else, and is found and ended like any other."""
    there, written = Namespace(), tmp_path / "who"
    tmp_path.chmod(0o777)
    script = (
        f"id -u > {written}.new; ip -o link >> {written}.new; mv {written}.new {written}; sleep 60"
    )

    async def prepare() -> Command:
        command = ("sh", "-c", script)
        return Command(command, os.environ, Path("/"), there.name, User(1337, 1337, read_all=True))

    process = ManagedProcess("x/y", prepare, Console(io.StringIO()), tmp_path / "log", grace=5.0)
    try:
        process.start()
        async with asyncio.timeout(30):
            while not written.exists():
                await asyncio.sleep(0.01)
        uid, *links = written.read_text().splitlines()
        assert uid == "1337"
        assert [link.split(":")[1].strip() for link in links] == ["lo"]
    finally:
        await process.stop()
        there.close()
    assert process.pid is None
