"""Programs that are not ours: found or skipped, started, waited for and ended."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

STARTING = 60.0


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip, with the reason, where a program is not installed (`.ci/run` installs them)."""
    missing = [program for program in programs if find(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def find(program: str) -> str | None:
    """Return the path of a program; Debian keeps some servers outside everybody's PATH."""
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", *map(str, postgres)]
    return shutil.which(program, path=os.pathsep.join(places))


def found(program: str) -> str:
    """Return the path of a program that `needs` has found."""
    path = find(program)
    assert path is not None, program
    return path


@contextmanager
def running(
    *command: str | Path,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the end of the block; with its log in the message when it does not start."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=None if environment is None else {**os.environ, **environment}, user=user,
            group=user, extra_groups=None if user is None else [],
        )  # fmt: skip
    try:
        deadline = time.monotonic() + STARTING
        while not ready():
            text = log.read_text(errors="replace")
            assert process.poll() is None, f"{command[0]} ended:\n{text}"
            assert time.monotonic() < deadline, f"{command[0]} does not start:\n{text}"
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def listening(port: int) -> Callable[[], bool]:
    """Return what says whether somebody accepts connections on a port."""

    def accepts() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    return accepts


async def output_of(*command: str | Path, stdin: bytes = b"", seconds: float = 30) -> str:
    """Run a program to its end, which must be a good one, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            out, error = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (command, out, error.decode())
    return out.decode("latin-1")
