"""End the process groups of a meshctl that cannot end them itself."""

import subprocess
import sys

import pytest

from control_plane.cli.local import minder
from tests.control_plane.cli.local.children import eventually
from tests.helpers.namespaces import Namespace, needs_namespaces

LAUNCHED = 2**22 + 7
"""A group that there is not: Linux counts processes to 2**22."""


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


@pytest.mark.skipif(sys.platform != "linux", reason="found through /proc")
async def test_who_left_its_group_is_killed_too() -> None:
    """A daemon has a session of its own, but was launched with a mark."""
    daemon = subprocess.Popen(  # noqa: ASYNC220
        ["sleep", "60"], start_new_session=True, env={"MESH_PROCESS": str(LAUNCHED)}
    )
    try:
        await eventually(lambda: [*minder.members(LAUNCHED)] == [daemon.pid])
        subprocess.run(  # noqa: ASYNC221  # nothing else goes on here
            [sys.executable, "-I", "-S", minder.__file__],
            input=f"{LAUNCHED}\n",
            text=True,
            check=True,
        )
        assert daemon.wait(5) == -9
    finally:
        daemon.kill()
        daemon.wait()


@needs_namespaces
def test_namespaces_on_the_list_are_removed() -> None:
    """With their files in /etc; unless somebody else has made one of the same name since."""
    listed, others = Namespace(), Namespace()
    try:
        files = minder.FILES / listed.name
        files.mkdir(parents=True)
        (files / "hosts").touch()
        inode = (minder.NAMESPACES / listed.name).stat().st_ino
        words = f"netns {listed.name} {inode}\nnetns {others.name} {inode}\nnetns mesh-gone 1\n"
        subprocess.run(
            [sys.executable, "-I", "-S", minder.__file__], input=words, text=True, check=True
        )
        assert not (minder.NAMESPACES / listed.name).exists()
        assert not files.exists()
        assert (minder.NAMESPACES / others.name).exists()
    finally:
        listed.close()
        others.close()
