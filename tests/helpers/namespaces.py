"""Network namespaces: machines of their own for tests that write packet filter rules."""

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.cli.local import launch

ROOT = Path(__file__).parent.parent.parent
_numbers = itertools.count()


def missing() -> str:
    """Say why there can be no namespaces here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root: it makes network namespaces"
    absent = [
        name for name in ("ip", "iptables-restore", "ip6tables-restore") if not shutil.which(name)
    ]
    if absent:
        return f"{' and '.join(absent)} not installed"
    name = f"mesh-test-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    try:
        for program in ("iptables", "ip6tables"):
            if problem := unusable(name, program):
                return problem
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def unusable(namespace: str, program: str) -> str:
    """Say why the nat table of an `iptables` cannot be used; empty when it can."""
    command = ["ip", "netns", "exec", namespace, program, "-t", "nat", "-S"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{program} does not work here: {done.stderr.strip()}" if done.returncode else ""


needs_namespaces = pytest.mark.skipif(bool(_why := missing()), reason=_why)


class Namespace:
    """One network namespace; what runs in it is started with `run` or `start`."""

    def __init__(self) -> None:
        self.name = f"mesh-test-{os.getpid()}-{next(_numbers)}"
        self._children: list[subprocess.Popen[str]] = []
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> None:
        ip("-n", self.name, *words)

    def run(self, *command: str, text: str = "", uid: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program in here to its end."""
        return subprocess.run(
            self._inside(command, uid), input=text, capture_output=True, text=True, check=False,
            timeout=60, cwd=ROOT,
        )  # fmt: skip

    def start(self, *command: str, uid: int = 0) -> subprocess.Popen[str]:
        """Start a program in here; it ends with the namespace."""
        child = subprocess.Popen(
            self._inside(command, uid), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
            text=True, cwd=ROOT,
        )  # fmt: skip
        self._children.append(child)
        return child

    def python(self, source: str, *arguments: str, uid: int = 0) -> str:
        """Run a piece of Python in here; return what it prints."""
        done = self.run(sys.executable, "-c", source, *arguments, uid=uid)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _inside(self, command: tuple[str, ...], uid: int) -> list[str]:
        # The interpreter of a virtual environment may lie where only root can read.
        user = ("--user", f"{uid}:{uid}", "--read-all") if uid else ()
        launcher = (sys.executable, "-I", "-S", launch.__file__, *user, str(os.getpid()))
        return ["ip", "netns", "exec", self.name, *launcher, *command]

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.communicate()
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@contextlib.contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Be in a namespace for a while, with all sockets, threads and processes that begin meanwhile."""
    # In setns(2); Python knows it from 3.12 on.
    enter = ctypes.CDLL(None, use_errno=True).setns
    names = Path("/proc/self/ns/net"), Path("/run/netns", namespace.name)
    with names[0].open() as here, names[1].open() as there:
        assert enter(there.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert enter(here.fileno(), 0) == 0, os.strerror(ctypes.get_errno())


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def join(
    one: Namespace, other: Namespace, network: str = "10.99.0", prefix: str = "fd99::"
) -> None:
    """
    Put a cable between two namespaces.

    The first gets .1 and sends everything to the second, which is .2, in both families.
    """
    ip("link", "add", "eth0", "netns", one.name, "type", "veth",
       "peer", "name", "eth0", "netns", other.name)  # fmt: skip
    for number, end in ((1, one), (2, other)):
        end.ip("addr", "add", f"{network}.{number}/24", "dev", "eth0")
        # Without duplicate address detection, which takes a second.
        end.ip("addr", "add", f"{prefix}{number}/64", "dev", "eth0", "nodad")
        end.ip("link", "set", "eth0", "up")
    one.ip("route", "add", "default", "via", f"{network}.2")
    one.ip("-6", "route", "add", "default", "via", f"{prefix}2")
