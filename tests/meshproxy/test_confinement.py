"""What a process gives up, as the kernel sees it."""

import os
import subprocess
import sys

import pytest

from meshproxy.confinement import warning_of_root

_PROGRAM = """
import ctypes, os, resource, sys
from meshproxy.confinement import confine
confine(keep=(int(sys.argv[1]),))
def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(status["NoNewPrivs"], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), status["Umask"],
      *resource.getrlimit(resource.RLIMIT_CORE), *(is_open(int(one)) for one in sys.argv[1:]))
"""


def test_what_is_given_up() -> None:
    """No new privileges, no dump, private files; of what was inherited, only what is expected."""
    expected, forgotten = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(expected), str(forgotten)],
        pass_fds=(expected, forgotten),
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(expected)
    os.close(forgotten)
    assert done.stdout.split() == ["1", "0", "0077", "0", "0", "True", "False"]


@pytest.mark.parametrize(("user", "warned"), [(0, True), (1337, False)])
def test_root_is_warned(user: int, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And told how to mean it."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert warned == ("--allow-root" in (warning_of_root() or ""))
