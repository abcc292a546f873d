"""End the process groups of a meshctl that cannot end them itself."""

import subprocess
import sys

from control_plane.cli.local import minder


def test_groups_on_the_list_are_killed_when_the_pipe_closes() -> None:
    """One that was taken off the list lives on."""
    listed, released = (subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2))
    try:
        words = f"{listed.pid}\n{released.pid}\n-{released.pid}\n"
        subprocess.run(
            [sys.executable, "-I", "-S", minder.__file__], input=words, text=True, check=True
        )
        assert listed.wait(5) == -9
        assert released.poll() is None
    finally:
        released.kill()
        released.wait()
