"""Ask to die with the parent, then become the child."""

import os
import subprocess
import sys

import pytest

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


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def launched(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*LAUNCH, *words], capture_output=True, text=True, check=False)


@as_root
def test_it_becomes_another_user() -> None:
    """User and group are the ones asked for, other groups are gone, and so are all of root's rights."""
    done = launched(
        "--user",
        "1337:1338",
        str(os.getpid()),
        "sh",
        "-c",
        "id -u; id -g; id -G; grep CapEff /proc/self/status",
    )

    assert done.stdout.split() == ["1337", "1338", "1338", "CapEff:", "0" * 16]


@as_root
def test_another_user_may_keep_the_right_to_read() -> None:
    """The one right that is asked for outlives the change of user and the start of the program."""
    done = launched(
        "--user",
        "1337:1338",
        "--read-all",
        str(os.getpid()),
        "sh",
        "-c",
        "id -u; grep CapEff /proc/self/status",
    )

    assert done.stdout.split() == ["1337", "CapEff:", "0000000000000004"]


def test_who_cannot_become_another_user_says_so() -> None:
    """Nothing is started as the wrong user."""
    become: tuple[str, ...] = ("--user", "1:1", str(os.getpid()), "echo", "started")
    if os.geteuid() == 0:  # become somebody first who cannot
        become = ("--user", "1337:1337", "--read-all", str(os.getpid()), *LAUNCH, *become)
    done = launched(*become)

    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "cannot become user 1\n"
