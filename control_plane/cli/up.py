"""
`meshctl up -f PATH`: a whole mesh on this machine, from files.

Starts a control plane, a sidecar for each Workload, and each Workload's command; follows the files
while it runs; stops everything on Ctrl-C.
"""

import argparse
import asyncio
import os
import sys
from typing import TextIO

from control_plane.cli import invocation
from control_plane.cli.arguments import Verbs, add_files, add_run
from control_plane.cli.errors import NO, OK


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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the mesh; return when it has stopped."""
    from control_plane.cli.local.logs import Console
    from control_plane.cli.local.run import for_seconds
    from control_plane.cli.local.run import run as run_mesh
    from control_plane.cli.local.rundir import RunDirectory, chosen
    from control_plane.cli.local.supervisor import BrokenFilesError, Supervisor

    directory = RunDirectory(chosen(arguments.run_dir, os.environ))
    console = Console(colour=wants_colour(sys.stdout))

    async def work(supervisor: Supervisor) -> None:
        console.announce(f"control plane ready: {supervisor.plane.context.api}")
        console.announce(f"its health: {invocation.typed('status', directory.context)}")
        console.announce(f"logs: {directory.logs}   context: {directory.context}")
        await for_seconds(arguments.seconds)

    try:
        asyncio.run(run_mesh(arguments.files, directory, console, work))
    except BrokenFilesError as error:
        print(error)
        return NO
    finally:
        directory.release()
    return OK


def wants_colour(out: TextIO) -> bool:
    """Say whether to colour: on a terminal, unless NO_COLOR (https://no-color.org) forbids."""
    return out.isatty() and not os.environ.get("NO_COLOR")
