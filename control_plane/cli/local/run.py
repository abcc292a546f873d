"""
Run a local mesh until somebody has had enough: the frame that `up` and `demo` share.

The first SIGINT, SIGTERM or SIGHUP asks the mesh to stop in good order, a second one ends it at
once.  Output that nobody reads any more, as in ``| head -1``, counts as the first.
"""

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from control_plane.cli.local.logs import Console
from control_plane.cli.local.network import Network
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.supervisor import Supervisor
from control_plane.sources.files import FilesSource
from control_plane.store import Store
from meshproxy.interpreter import advice

DESCRIPTORS = 16_384
"""Files that we may have open: each port that is held is one, each process four."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Work = Callable[[Supervisor], Awaitable[None]]
"""What is done while the mesh runs; the mesh stops when it returns."""


async def run(
    files: list[Path],
    directory: RunDirectory,
    console: Console,
    work: Work,
    network: Network | None = None,
) -> None:
    """
    Start the mesh, do the work while following the files, stop the mesh.

    Args:
        files: What the mesh is made from.
        directory: Everything that it writes.
        console: Where it speaks.
        work: What is done while it runs.
        network: Where each workload has a network namespace of its own.

    Raises:
        BrokenFilesError: The files are not fit to start from; nothing was started.
        StartError: The control plane did not start.
    """
    allow_descriptors(DESCRIPTORS)
    loop = asyncio.get_running_loop()
    store = Store()
    source = FilesSource(files, store, directory.accepted)
    supervisor = Supervisor(files, directory, source, store, console, network)
    enough = asyncio.Event()

    def asked_to_stop() -> None:
        if enough.is_set():
            console.announce("killing everything")
            supervisor.kill()
        enough.set()

    console.on_lost = enough.set
    if console.echo and (warning := advice(sys.version_info[:3])):
        console.announce(warning)  # once, and not by each process
    for number in SIGNALS:
        loop.add_signal_handler(number, asked_to_stop)
    try:
        if await _unless(enough, supervisor.start()):
            await _unless(enough, _first(work(supervisor), supervisor.follow()))
        enough.set()
    finally:
        await supervisor.stop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def allow_descriptors(wanted: int) -> None:
    """Raise this process's limit of open files, often 1024, as far as `wanted` if that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


async def for_seconds(seconds: float | None) -> None:
    """Pass the time: for ever, where no time was given."""
    if seconds is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(seconds)


async def _unless(enough: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do some work unless somebody has had enough; return whether it was done."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(enough.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return True
        return False
    finally:
        await _cancelled(working, waiting)


async def _first(*works: Awaitable[None]) -> None:
    """Do several things at once, until the first of them ends."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        await _cancelled(*tasks)


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        if not task.done() or task.cancelled():
            with contextlib.suppress(asyncio.CancelledError):
                await task
