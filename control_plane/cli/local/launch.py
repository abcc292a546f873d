"""
Stand between `meshctl` and a child for a moment: ask to die with the parent, then become the child.

`meshctl` may be killed with SIGKILL, which no code survives to clean up after; on Linux a process
can ask the kernel for a signal when its parent ends (prctl(2), PR_SET_PDEATHSIG), and the wish
outlives exec.  It has to be made in the child.  Python's `preexec_fn` could, but runs Python code
between fork and exec, where a lock held by another thread stays locked forever; a program of its
own has no such problem.

    python -I -S launch.py [--user UID:GID] [--read-all] PARENT_PID PROGRAM [ARGUMENT…]

On the way it can change the user.  The kernel forgets the wish above when that happens, so it must
be here, before it.  ``--read-all`` leaves the new user one right of root's, to read any file
(capabilities(7), CAP_DAC_READ_SEARCH), for programs that lie where it could not read them.

This file runs alone, without the package, so that it starts in a few milliseconds.
"""

import os
import signal
import sys
import warnings  # noqa: F401 (execvp imports it, which a new user may not be allowed to)

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_READ_SEARCH = 2
MARK = "MESH_PROCESS"
"""Variable with our number: who inherits it was started by us, whatever group it moved to."""
NOT_STARTED = 127
"""What a shell answers for a program that it cannot start."""


def main(arguments: list[str]) -> int:
    user: str | None = None
    read_all = False
    while arguments[0].startswith("--"):
        option, *arguments = arguments
        if option == "--user":
            user, *arguments = arguments
        else:
            assert option == "--read-all"
            read_all = True
    parent, command = int(arguments[0]), arguments[1:]
    os.environ[MARK] = str(os.getpid())
    if user is not None:
        uid, gid = map(int, user.split(":"))
        if not become(uid, gid, read_all=read_all):
            print(f"cannot become user {uid}", file=sys.stderr)
            return NOT_STARTED
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


def become(uid: int, gid: int, *, read_all: bool) -> bool:
    """Change to another user; say whether that worked."""
    import ctypes  # before the change: the new user may not be allowed to read it

    libc = ctypes.CDLL(None)
    try:
        if read_all:
            libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        return False
    if not read_all:
        return True
    # struct __user_cap_header_struct, and two of __user_cap_data_struct: effective, permitted,
    # inheritable.  What is permitted and inheritable may become ambient, which outlives exec.
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(*[1 << CAP_DAC_READ_SEARCH] * 3, 0, 0, 0)
    if libc.capset(header, data) != 0:
        return False
    raised = libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0)
    return bool(raised == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
