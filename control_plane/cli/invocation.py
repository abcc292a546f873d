"""
How this user starts `meshctl`: hints must work when they are copied into the same shell.

``meshctl`` where the PATH leads to it, else the shorter of its absolute and its relative path, as
``.venv/bin/meshctl``; with ``python -m`` where it was started so.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from control_plane.cli.context import option

NAME = "meshctl"
MODULE = "control_plane.cli.main"


def typed(verb: str, context: Path) -> str:
    """Return the command line that runs a verb on the mesh of this context file."""
    folder = Path.cwd()
    words = [*program(Path(sys.argv[0]), folder), verb]
    return shlex.join([*words, *option(context, os.environ, folder, Path.home())])


def program(started: Path, folder: Path) -> tuple[str, ...]:
    """
    Return the words that start `meshctl` in `folder`.

    Args:
        started: What the running process was started as, as `sys.argv` has it.
        folder: The current directory.
    """
    if started.name != NAME:
        return (shorter(Path(sys.executable), folder), "-m", MODULE)
    found = shutil.which(NAME)
    if found is not None and Path(found).samefile(folder / started):
        return (NAME,)
    return (shorter(folder / started, folder),)


def shorter(path: Path, folder: Path) -> str:
    """Return the shorter of a path's absolute and its relative form."""
    relative = os.path.relpath(path, folder)
    if os.sep not in relative:
        relative = f"{os.curdir}{os.sep}{relative}"  # a bare name would be looked for in the PATH
    return min(str(path), relative, key=len)
