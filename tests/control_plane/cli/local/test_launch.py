"""Ask to die with the parent, then become the child."""

import os
import subprocess
import sys

from control_plane.cli.local import launch

LAUNCH = [sys.executable, "-I", "-S", launch.__file__]


def test_it_becomes_the_program() -> None:
    """Arguments, output and exit code are the program's."""
    done = subprocess.run(
        [*LAUNCH, str(os.getpid()), "sh", "-c", "echo $0 $1; exit 3", "a b", "c"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (3, "a b c\n")


def test_a_program_that_is_not_there_is_said() -> None:
    """One line and a shell's exit code, no traceback."""
    done = subprocess.run(
        [*LAUNCH, str(os.getpid()), "no-such-program"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 127
    assert done.stderr == "cannot start 'no-such-program': No such file or directory\n"


def test_it_does_not_start_for_a_parent_that_is_gone() -> None:
    """Between fork and the wish to die with it, the parent may end."""
    done = subprocess.run(
        [*LAUNCH, "1", "echo", "started"], capture_output=True, text=True, check=False
    )

    assert done.stdout == ""
