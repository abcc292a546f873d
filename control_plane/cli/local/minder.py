"""
End the process groups of a `meshctl` that cannot end them itself.

The kernel kills the children of a parent that was killed (see `launch`), but not the children's
children: a workload's command may be a shell script.  This little process holds one end of a pipe
that `meshctl` writes the numbers of its process groups into.  However `meshctl` ends, the pipe
closes, and whatever group is still on the list is killed.

    python -I -S minder.py        standard input: lines ``+GROUP`` and ``-GROUP``
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line)
        if group > 0:
            groups.add(group)
        else:
            groups.discard(-group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
