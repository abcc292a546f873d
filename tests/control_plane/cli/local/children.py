"""Tiny child processes, and how to see whether they live."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from control_plane.cli.local.polling import until
from control_plane.cli.local.process import Command

LIMIT = 10.0


def python(code: str, directory: Path) -> Command:
    """Return a command that runs some Python."""
    return Command((sys.executable, "-S", "-u", "-c", code), os.environ, directory)


def lives(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; fail when it takes too long."""

    async def holds() -> bool:
        return bool(condition())

    async with asyncio.timeout(LIMIT):
        await until(holds, every=0.01)
