"""
Listening sockets: where they come from, and how several processes share a port.

A listener asks for a place (address and port) and gets its sockets.  They are opened here, or have
been handed over before: by the process that served until now (hot restart), or by the parent of
this one (workers).  What was handed over is used, never opened a second time: the connections that
wait in its queue stay there, and nobody is refused in between.

**Several sockets in one place.**  Each of N workers listens on a socket of its own (SO_REUSEPORT);
the kernel spreads new connections over them.  When the last descriptor of such a socket is closed,
the connections in *its* queue are reset although its siblings live on; so whoever keeps a place
keeps all of its sockets, whatever becomes of the process that accepts from one.

SO_REUSEPORT also lets a stranger of the same user join unnoticed, a second proxy with the same port,
say.  So the first socket of a place is bound without it, which fails when anybody has the port, and
only then opened to siblings.
"""

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from meshproxy.contract.resources import ListenerSpec
from meshproxy.contract.wire import ContractError
from meshproxy.tunnel import watch

BACKLOG = 4096

_STREAM: Final = int(socket.SOCK_STREAM)

Place = tuple[str, int]
"""Address and port, as they are configured; or the path of a Unix socket, and 0."""


class Sockets:
    """Where the listeners of one process get their sockets from."""

    def __init__(self) -> None:
        self._handed: dict[Place, list[socket.socket]] = {}
        self._lent: dict[Place, list[socket.socket]] = {}  # of them, those that were asked for

    def hand(self, place: Place, sockets: Iterable[socket.socket]) -> None:
        """Keep sockets of another process for whoever asks for their place."""
        self._handed.setdefault(place, []).extend(sockets)

    def take(self, place: Place, count: int = 1) -> list[socket.socket]:
        """
        Return the sockets of a place, listening, at least `count`; they are the caller's now.

        Raises:
            OSError: The address or port cannot be had.
        """
        handed = self._handed.get(place, [])
        sockets = handed + listen(place, count - len(handed), beside=handed)
        if self._handed.pop(place, None):
            self._lent[place] = handed
        return sockets

    def give_back(self, place: Place, sockets: Iterable[socket.socket]) -> None:
        """Undo `take`: what was opened is closed, what was handed over waits for another taker."""
        lent = self._lent.pop(place, [])
        for sock in sockets:
            if sock not in lent:
                sock.close()
        if lent:
            self._handed[place] = lent

    def close(self) -> None:
        """Close what nobody has asked for: clients must not wait in a queue that nobody serves."""
        for sockets in self._handed.values():
            for sock in sockets:
                sock.close()
        self._handed.clear()
        self._lent.clear()


def listen(
    place: Place, count: int = 1, beside: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """
    Open `count` sockets in one place, `beside` those of ours that listen there already.

    Raises:
        OSError: The address or port cannot be had.
    """
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            siblings = [*beside, *opened]
            for sibling in siblings:
                sibling.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened.append(_listen(place, share=bool(siblings)))
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


class _Accepted(socket.socket):
    """
    A socket whose family and kind are plain numbers, as in the class below it: whoever asks for
    them (uvloop does, thrice) would have an enumeration made.

    It must be a `socket.socket`: of no other would uvloop, once it has taken it over, let
    `close` be no more than a wish.  The number would be closed twice, and belong to somebody else
    by then.
    """

    __slots__ = ()

    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


def accept(listening: socket.socket, family: int) -> tuple[socket.socket, Any]:
    """
    Take the next connection that waits; return its socket and the address of the other end.

    `socket.accept` makes enumerations of family and kind, which is half of what it costs.

    Args:
        listening: Where it waits.
        family: Of both.

    Raises:
        OSError: As `socket.accept`; BlockingIOError where nobody waits.
    """
    descriptor, peer = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    return _Accepted(family, _STREAM, 0, descriptor), peer


def cannot_listen(spec: ListenerSpec, error: OSError) -> ContractError:
    """Return the refusal of a snapshot whose listener has no place to listen on."""
    where = f"{spec.address}:{spec.port}"
    reason = f"cannot listen on {where}: {error.strerror or error}"
    return ContractError(f"listener/{spec.name} port", reason)


def _listen(place: Place, *, share: bool) -> socket.socket:
    address, _ = place
    if "/" in address:
        return _listen_at(Path(address))
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        watch(sock)  # and with it all that it will accept, at no cost for each
        if sock.family == socket.AF_INET6:  # so that `::` and `0.0.0.0` can be had side by side
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(place)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    except (ValueError, TypeError) as error:  # no address at all
        sock.close()
        raise OSError(str(error)) from None
    return sock


def peer_address(sock: socket.socket) -> str | None:
    """Return the IP address of the other end; None where it has gone."""
    try:
        peer = sock.getpeername()
    except OSError:
        return None
    return str(peer[0]) if isinstance(peer, tuple) else None


def _listen_at(path: Path) -> socket.socket:
    """Listen on a Unix socket that only our own user may connect to."""
    _remove_what_a_dead_process_left(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # before there is a name to connect to
        sock.setblocking(False)
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_what_a_dead_process_left(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        try:
            visitor.connect(str(path))
        except ConnectionRefusedError:  # a socket, and nobody behind it
            if path.is_socket():
                path.unlink()
            return
        except OSError:  # nothing there, or no socket: `bind` says what is wrong
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
