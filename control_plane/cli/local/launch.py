"""
Stand between `meshctl` and a child for a moment: ask to die with the parent, then become the child.

`meshctl` may be killed with SIGKILL, which no code survives to clean up after; on Linux a process
can ask the kernel for a signal when its parent ends (prctl(2), PR_SET_PDEATHSIG), and the wish
outlives exec.  It has to be made in the child.  Python's `preexec_fn` could, but runs Python code
between fork and exec, where a lock held by another thread stays locked forever; a program of its
own has no such problem.

    python -I -S launch.py PARENT_PID PROGRAM [ARGUMENT…]

This file runs alone, without the package, so that it starts in a few milliseconds.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
MARK = "MESH_PROCESS"
"""Variable with our number: who inherits it was started by us, whatever group it moved to."""
NOT_STARTED = 127
"""What a shell answers for a program that it cannot start."""


def main(arguments: list[str]) -> int:
    parent, command = int(arguments[0]), arguments[1:]
    os.environ[MARK] = str(os.getpid())
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before it could be asked for
            return NOT_STARTED
    try:
        os.execvp(command[0], command)  # noqa: S606 (starting what it is told is its job)
    except OSError as error:
        print(f"cannot start {command[0]!r}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
