"""
End the process groups of a `meshctl` that cannot end them itself.

The kernel kills the children of a parent that was killed (see `launch`), but not the children's
children: a workload's command may be a shell script.  This little process holds one end of a pipe
that `meshctl` writes the numbers of its process groups into.  However `meshctl` ends, the pipe
closes, and whatever group is still on the list is killed, with those who left it: a daemon leads
a session of its own, but carries the mark of its launch (see `launch`) in its environment.
Network namespaces are removed after that, if they are still the ones that were told of.

    python -I -S minder.py        standard input, line by line:

    GROUP             lives
    -GROUP            is gone
    netns NAME INODE  was made
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

KERNEL_THREAD = 0x00200000
"""PF_KTHREAD in the flags of /proc/PID/stat: it has no environment at all."""

NAMESPACES, FILES = Path("/run/netns"), Path("/etc/netns")


def main() -> None:
    groups: set[int] = set()
    namespaces: dict[str, int] = {}
    for line in sys.stdin:
        if line.startswith("netns "):
            _, name, inode = line.split()
            namespaces[name] = int(inode)
            continue
        group = int(line)
        if group > 0:
            groups.add(group)
        else:
            groups.discard(-group)
    for group in groups:
        for process in [*members(group)]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for name, inode in namespaces.items():
        remove(name, inode)


def remove(name: str, inode: int) -> None:
    """Remove a network namespace and its files in /etc, unless it is gone or another by now."""
    with contextlib.suppress(OSError):
        if (NAMESPACES / name).stat().st_ino == inode:
            import shutil
            import subprocess

            subprocess.run(["ip", "netns", "delete", name], check=False)
            shutil.rmtree(FILES / name, ignore_errors=True)
            with contextlib.suppress(OSError):  # others have some
                FILES.rmdir()


def members(group: int) -> Iterator[int]:
    """
    Yield the processes that live in a group or were launched in it; on Linux, elsewhere none.

    A zombie does not live, though kill(2) finds it: in a container whose first process does not
    reap orphans it stays for ever.
    """
    mark = b"MESH_PROCESS=%d" % group
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # pid (name) state ppid pgrp …; the name may hold anything, also a parenthesis
            status = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if status[0] == "Z":
                continue
            known = int(status[2]) == group
            if known or (
                not int(status[6]) & KERNEL_THREAD and mark in environment(folder).split(b"\0")
            ):
                yield int(folder.name)


def environment(folder: Path) -> bytes:
    """
    Return what a process was started with.

    One that is in the midst of exec(2) has no environment for a moment, though whoever started it
    has heard already that it runs: what is empty is looked at again.
    """
    for _ in range(30):
        found = (folder / "environ").read_bytes()
        if found:
            break
        time.sleep(0.001)
    return found


if __name__ == "__main__":
    main()
