"""
What a process of ours gives up before it does anything else.

    descriptors         none but the three standard ones and those that are expected: a program that
                        forgot to close a socket or a secret must not have us hold it open
    new privileges      none for us and whatever we start, set-user-ID programs included
    memory              no core dump, no debugger of the same user: there are keys in it
    files               are made for their owner alone

Each of these can be done by an ordinary user, which is what we should run as; containers and
service managers can do more from outside (docs/security.md).
"""

import contextlib
import ctypes
import os
import resource
from collections.abc import Container
from pathlib import Path

# linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def confine(keep: Container[int] = ()) -> None:
    """
    Give up what is not needed.

    Args:
        keep: Descriptors to leave open, besides standard input, output and error.
    """
    _close_what_was_inherited(keep)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.uname().sysname == "Linux":
        libc = ctypes.CDLL(None, use_errno=True)
        for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
            if libc.prctl(option, value, 0, 0, 0):
                error = ctypes.get_errno()
                raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")


def warning_of_root() -> str | None:
    """Return what to tell who runs us as root, or None."""
    if os.geteuid():
        return None
    return (
        "running as root, of which nothing is needed: use an ordinary user (docs/security.md),"
        " or say --allow-root"
    )


def _close_what_was_inherited(keep: Container[int]) -> None:
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2 and descriptor not in keep:
            with contextlib.suppress(OSError):  # that of the listing itself is closed by now
                os.close(descriptor)
