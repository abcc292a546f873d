"""
Linux network namespaces by name, as `ip netns` keeps them (ip-netns(8)).

A name is a file in /run/netns.  Files in /etc/netns/NAME stand in for those of the same name in
/etc, such as `hosts`, for every program that is started in the namespace by `ip netns exec`.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from control_plane.cli.errors import CommandError

NAMES = Path("/run/netns")
FILES = Path("/etc/netns")
CLONE_NEWNET = 0x40000000


class NamespaceError(CommandError):
    """Something about a namespace did not work; says what, and what the system said."""


def enter(name: str) -> tuple[str, ...]:
    """Return the words that, before a command, let it run in a namespace."""
    return (shutil.which("ip") or "ip", "netns", "exec", name)


def named(prefix: str) -> list[str]:
    """Return the namespaces that there are of a family: `prefix`, and ``prefix-…``."""
    try:
        names = [path.name for path in NAMES.iterdir()]
    except FileNotFoundError:  # there never was one on this machine
        return []
    return sorted(name for name in names if name == prefix or name.startswith(f"{prefix}-"))


def inode(name: str) -> int:
    """Return what tells a namespace from a later one of the same name."""
    return (NAMES / name).stat().st_ino


async def run(*command: str, text: str = "", environment: Mapping[str, str] | None = None) -> str:
    """
    Run a program to its end; return what it printed.

    Raises:
        NamespaceError: It failed; carries what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    out, err = await process.communicate(text.encode())
    if process.returncode:
        said = " ".join((err or out).decode(errors="replace").split())
        raise NamespaceError(f"{' '.join(command)}: {said or f'exit code {process.returncode}'}")
    return out.decode()


async def ip(commands: Iterable[str], namespace: str | None = None) -> None:
    """
    Run `ip` commands one after the other, as far as they succeed.

    Raises:
        NamespaceError: One failed.
    """
    where = ("-n", namespace) if namespace else ()
    await run("ip", *where, "-batch", "-", text="\n".join([*commands, ""]))


def socket_in(name: str) -> socket.socket:
    """
    Return a TCP socket that lives in a namespace: what it connects to is what is in there.

    A socket stays where it was made.  A thread enters the namespace, makes it, and ends: no other
    code ever runs in there.
    """
    made: list[socket.socket | OSError] = []

    def make() -> None:
        try:
            with (NAMES / name).open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            made.append(socket.socket())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    [result] = made
    if isinstance(result, OSError):
        raise result
    return result


# Files --------------------------------------------------------------------------------------------


def give_file(name: str, file: str, content: str) -> None:
    """
    Let programs in a namespace see `content` as /etc/`file`.

    A file that is there is written in place: it is mounted in every program that runs.
    """
    folder = FILES / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(content)


def take_files(name: str) -> None:
    """Remove all that `give_file` has written for a namespace."""
    shutil.rmtree(FILES / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # others have some, or there are none
        FILES.rmdir()
