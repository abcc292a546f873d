"""
`meshctl demo`: a small shop on a mesh, with visitors, and a table of what flows.

The same as `meshctl up` on the demo's files, plus a steady load of requests that enter through the
sidecar of `visitors`.  It ends with a verdict: exit code 0 only if every request was answered
rightly, every hop was mutual TLS by the sidecars' own count, and every edge was travelled.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import control_plane
from control_plane.cli.arguments import Verbs, add_run
from control_plane.cli.errors import NO, OK, CommandError
from control_plane.cli.output import printable
from control_plane.cli.up import wants_colour


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "demo",
        help="a demo mesh with traffic and a live table",
        description="Start the demo mesh (storefront, two versions of catalog, reviews), send it "
        "requests from outside, and show what flows on each edge. Exit code 0 only if every "
        "request succeeded and every hop was mutual TLS.",
    )
    add_run(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return its verdict."""
    from control_plane.cli.demonstration import Demonstration
    from control_plane.cli.local.logs import Console
    from control_plane.cli.local.run import run as run_mesh
    from control_plane.cli.local.rundir import RunDirectory, chosen
    from control_plane.cli.local.supervisor import BrokenFilesError

    files = [demo_files()]
    directory = RunDirectory(chosen(arguments.run_dir, os.environ))
    console = Console(colour=wants_colour(sys.stdout), echo=False)
    demonstration = Demonstration(files[0], directory, console, arguments.seconds)
    try:
        asyncio.run(run_mesh(files, directory, console, demonstration.work))
    except BrokenFilesError as error:
        print(error)
        return NO
    finally:
        directory.release()
    problems = demonstration.problems
    if problems is None:
        raise CommandError(
            "the demo was stopped before its mesh was ready: no request was sent, so there is no verdict"
        )
    for problem in problems:
        print(printable(f"meshctl: {problem}"), file=sys.stderr)
    return NO if problems else OK


def demo_files() -> Path:
    """Return the folder of the demo's files: in a checkout, or inside the installed package."""
    package = Path(control_plane.__file__).parent
    for folder in (package.parent / "configs" / "demo", package / "configs" / "demo"):
        if folder.is_dir():
            return folder
    raise CommandError(f"the demo's files are missing: no configs/demo beside or in {package}")
