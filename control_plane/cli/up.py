"""
`meshctl up -f PATH`: a whole mesh on this machine, from files.

Starts a control plane, a sidecar for each Workload, and each Workload's command; follows the files
while it runs; stops everything on Ctrl-C.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from control_plane.cli import invocation
from control_plane.cli.arguments import Verbs, add_files, add_run
from control_plane.cli.errors import NO, OK
from control_plane.cli.output import printable

if TYPE_CHECKING:
    from control_plane.cli.local.rundir import RunDirectory
    from control_plane.cli.local.supervisor import Supervisor

SETTLED_WITHIN = 20.0
"""Seconds after which what is not ready is told of as it is."""


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "up",
        help="start a whole local mesh from files",
        description="Start a control plane, a sidecar for each Workload, and each Workload's "
        "command. Edits of the files take effect while it runs; what did not change is not "
        "restarted. Ctrl-C stops everything.",
    )
    add_files(parser)
    add_run(parser)
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="show routine lines of sidecars and control plane too (log files always have them)",
    )
    parser.add_argument(
        "--netns",
        action="store_true",
        help="give each workload a network namespace with addresses of its own, and capture its "
        "traffic, so that clients need know of no proxy (needs root)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the mesh; return when it has stopped."""
    from control_plane.cli.local.logs import NAME, Console
    from control_plane.cli.local.network import Network, app_user, check
    from control_plane.cli.local.polling import until
    from control_plane.cli.local.run import for_seconds
    from control_plane.cli.local.run import run as run_mesh
    from control_plane.cli.local.rundir import RunDirectory, chosen
    from control_plane.cli.local.supervisor import BrokenFilesError, Supervisor

    if arguments.netns:
        check(os.geteuid())
    directory = RunDirectory(chosen(arguments.run_dir, os.environ))
    network = Network(directory.path, app_user(os.environ)) if arguments.netns else None
    console = Console(colour=wants_colour(sys.stdout), verbose=arguments.verbose)

    async def tell(supervisor: Supervisor) -> None:
        console.say(NAME, f"control plane ready: {supervisor.plane.context.api}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN):
                await until(lambda: _is_settled(supervisor))
        console.announce(_told(supervisor, directory))

    async def work(supervisor: Supervisor) -> None:
        telling = asyncio.create_task(tell(supervisor))
        try:
            await for_seconds(arguments.seconds)
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    try:
        asyncio.run(run_mesh(arguments.files, directory, console, work, network))
    except BrokenFilesError as error:
        print(error)
        return NO
    finally:
        directory.release()
    return OK


async def _is_settled(supervisor: "Supervisor") -> bool:
    """Say whether nothing is starting any more: all is ready, or known to be in trouble."""
    now = time.time()
    words = [one.word(now) for one in supervisor.report.processes]
    if not words or "starting" in words:
        return False
    return all([await workload.is_ready() for workload in supervisor.workloads.values()])


def _told(supervisor: "Supervisor", directory: "RunDirectory") -> str:
    """Return what somebody needs who has just started a mesh."""
    from control_plane.cli.directions import directions

    state = supervisor.state
    door, calls = directions(supervisor.workloads, state.services.values(), state.routes.values())
    now = time.time()
    problems = [one.problem(now) for one in supervisor.report.processes if one.problem(now)]
    lines = [f"not well: {problem}" for problem in problems] or ["everything is ready"]
    lines.extend(f"warning: {warning}" for warning in supervisor.report.warnings)
    if calls:
        lines += ["", f"Call a service from outside, as {door}:", ""]
        width = max(len(service) for service, _ in calls)
        lines.extend(f"  {service.ljust(width)}   {command}" for service, command in calls)
    lines += [
        "",
        f"  health       {invocation.typed('status', directory.context)}",
        f"  who is who   {invocation.typed('proxies', directory.context)}",
        f"  traffic      {invocation.typed('stat', directory.context)}",
        f"  logs         {invocation.shorter(directory.logs, Path.cwd())}",
        "",
    ]
    return "\n".join(["", *map(printable, lines)])


def wants_colour(out: TextIO) -> bool:
    """Say whether to colour: on a terminal, unless NO_COLOR (https://no-color.org) forbids."""
    return out.isatty() and not os.environ.get("NO_COLOR")
