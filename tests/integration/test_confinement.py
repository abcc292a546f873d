"""A real sidecar with as little as possible: of privileges, of files, of a log to write to."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.client import UnreachableError, request
from tests.helpers import pair
from tests.helpers.client import connect, get
from tests.helpers.door import Door
from tests.helpers.environment import until
from tests.helpers.origin import hello, origin

pytestmark = pytest.mark.integration

NOBODY = 65534
ROOT = Path(__file__).parent.parent.parent


@contextlib.asynccontextmanager
async def door(directory: Path, *arguments: str, **how: Any) -> AsyncIterator[Door]:
    """Run one, and end it as an operator would."""
    async with origin(hello) as app:
        made = Door(directory, app.port)
        made.sidecar.process = made.sidecar.launch(*arguments, **how)
        try:
            await asyncio.to_thread(
                pair.until_ready, made.sidecar.admin, made.sidecar.process, made.sidecar.log
            )
            yield made
            assert await asyncio.to_thread(made.sidecar.stop) == 0
        finally:
            made.sidecar.process.kill()
            made.sidecar.process.wait()


# What it gives up -----------------------------------------------------------------------------


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_it_inherits_it_closes_and_what_it_does_not_need_it_drops(
    workers: int, tmp_path: Path
) -> None:
    """A socket that somebody forgot to close; privileges of set-user-ID programs; core dumps."""
    forgotten, other = socket.socketpair()
    with other:
        async with door(
            tmp_path, "--workers", str(workers), pass_fds=(forgotten.fileno(),)
        ) as made:
            forgotten.close()
            pid = made.sidecar.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            assert len(children) == (workers if workers > 1 else 0)
            other.settimeout(10)
            assert other.recv(1) == b"", "nobody has it open any more"
            for one in (pid, *map(int, children)):
                status = status_of(one)
                assert status["NoNewPrivs"] == "1"
                assert status["Umask"] == "0077"
                limits = Path(f"/proc/{one}/limits").read_text()
                assert "Max core file size        0                    0" in limits
            assert (await get(made.port)).status == 200


async def test_root_is_warned_unless_it_is_meant(tmp_path: Path) -> None:
    """Once, at the start."""
    for name, words in (("warned", ()), ("meant", ("--allow-root",))):
        (tmp_path / name).mkdir()
        async with door(tmp_path / name, *words) as made:
            pass
        expected = name == "warned" and os.geteuid() == 0
        assert made.sidecar.log().count("running as root") == expected


# Where it can write nothing but its state -----------------------------------------------------

# Everything is mounted read-only; the sidecar's directory, where its state is, again as it was.
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cut -d' ' -f2 /proc/self/mounts | while read -r place; do
    case $place in "$1") ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || : ;; esac
done
if touch "$2" 2>/dev/null; then rm "$2"; exit 97; fi
shift 2
exec "$@"
"""


def can_mount() -> bool:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount --make-rprivate / && mount -o remount,bind,ro /"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def why_not_as_nobody() -> str:
    """A clone, or its Python, may lie where only its owner may look."""
    as_nobody = ["setpriv", f"--reuid={NOBODY}", "--clear-groups"]
    for command in (
        ["test", "-x", sys.executable],
        [sys.executable, "-c", "import meshproxy.proxy"],
    ):
        done = subprocess.run([*as_nobody, *command], cwd=ROOT, capture_output=True, check=False)
        if done.returncode:
            return f"an ordinary user cannot do this here: {' '.join(command)}"
    return ""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that any user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts, and becomes another user")
@pytest.mark.parametrize("user", [0, NOBODY])
async def test_it_serves_without_privileges_on_a_read_only_file_system(
    user: int, open_directory: Path
) -> None:
    """No capability, an ordinary user, and nothing writable but the state directory."""
    if not shutil.which("setpriv") or not can_mount():
        pytest.skip("nothing can be mounted here")
    if user and (why := why_not_as_nobody()):
        pytest.skip(why)
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    if user:
        drop += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    async with origin(hello) as app:
        made = Door(open_directory, app.port)
        own = made.sidecar.directory
        before = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            READ_ONLY,
            "sh",
            str(own),
            str(ROOT / "no"),
            *drop,
        ]
        # What `launch` writes is written before the files change hands.
        made.sidecar.launch(before=["true"]).wait()
        for path in (own, *own.iterdir()):
            os.chown(path, user, user)
        process = made.sidecar.process = made.sidecar.launch(
            "--workers", "2", before=before, cwd=ROOT
        )
        try:
            await asyncio.to_thread(pair.until_ready, made.sidecar.admin, process, made.sidecar.log)
            status = status_of(process.pid)
            assert status["Uid"].split() == [str(user)] * 4
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            assert (await get(made.port)).status == 200
            assert (own / "state").stat().st_uid == user
            assert "no other process will be able" not in made.sidecar.log()
            assert await asyncio.to_thread(made.sidecar.stop) == 0
        finally:
            process.kill()
            process.wait()


# A log that cannot be written -----------------------------------------------------------------


async def test_a_log_on_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    """It starts, serves, and ends with 0."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with door(tmp_path, "--log-level", "debug", stderr=full) as made:
            assert (await get(made.port)).status == 200
    finally:
        os.close(full)


async def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    """The pipe is full before the first line: whoever waited for it would not even start."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    try:
        async with door(tmp_path, "--log-level", "debug", stderr=writer) as made:
            for _ in range(20):
                assert (await get(made.port)).status == 200
    finally:
        os.close(reader)
        os.close(writer)


# What can be done from outside ----------------------------------------------------------------


async def test_drain_by_admin_where_it_is_enabled(tmp_path: Path) -> None:
    """A request under way is finished, then it ends with 0."""
    async with origin(hello) as app:
        for enabled in (False, True):
            folder = tmp_path / str(enabled)
            folder.mkdir()
            made = Door(folder, app.port)
            made.sidecar.settings["admin"] |= {"drain": enabled}
            with made.sidecar as sidecar:
                where = f"127.0.0.1:{sidecar.admin}"
                async with connect(made.port) as client:
                    await client.send(
                        b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 2\r\n\r\na"
                    )
                    await until(lambda: app.requests)
                    status, _ = await asyncio.to_thread(request, where, "POST", "/drain")
                    assert status == (202 if enabled else 405)
                    await client.send(b"b")
                    assert (await client.response()).status == 200
                app.requests.clear()
                if enabled:
                    assert await asyncio.to_thread(sidecar.process.wait, 15) == 0
                else:
                    assert (await get(made.port)).status == 200
                    assert await asyncio.to_thread(sidecar.stop) == 0


async def test_an_admin_socket_survives_a_hot_restart(tmp_path: Path) -> None:
    """The pages have no port at all, and the successor has the same socket."""
    async with origin(hello) as app:
        made = Door(tmp_path, app.port)
        sidecar = made.sidecar
        path = sidecar.directory / "admin.sock"
        sidecar.settings["admin"] = {"socket": str(path), "drain": True}

        def page(name: str) -> int:
            try:
                return request(f"unix:{path}", "GET", name)[0]
            except UnreachableError:
                return 0

        processes = [sidecar.launch()]
        try:
            await until(lambda: page("/healthz/ready") == 200)
            processes.append(sidecar.launch("--takeover", "require"))
            assert await asyncio.to_thread(processes[0].wait, 30) == 0
            assert page("/metrics") == 200
            assert (await get(made.port)).status == 200
            processes[1].send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(processes[1].wait, 30) == 0
            assert page("/metrics") == 0
        finally:
            for process in processes:
                process.kill()
                process.wait()
