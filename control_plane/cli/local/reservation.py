"""
Hold a port for a process that will listen on it later.

To find a port free and to hand it to a child that starts a second later leaves a second in which
another mesh finds the same port free.  So the port is bound at once and stays bound, by rules of
Linux (``inet_csk_bind_conflict`` in its source; socket(7) says less):

* Binding without SO_REUSEADDR fails as long as anybody has the port bound: of all who want it at
  the same moment exactly one gets it.
* Two sockets that both have SO_REUSEADDR may be bound to one port as long as neither listens, and
  the option may be set after binding.

A reservation is bound without the option, which makes it ours alone, and then gets it, which lets
our own programs listen on the port: they bind with SO_REUSEADDR, as servers do.  It never listens,
so it stays theirs for as often as they restart.  An app that binds without the option could not:
its reservation is released just before it starts.

Elsewhere than on Linux a second binding is refused in any case: there a port is only looked at.
"""

import errno
import socket
import sys
from pathlib import Path

ADDRESS = "127.0.0.1"

_TIME_WAIT = "06"
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_TAKEN = (errno.EADDRINUSE, errno.EACCES)


def reserve(port: int, *, known: bool = False) -> socket.socket | None:
    """
    Return a socket that holds `port` until it is closed; None where somebody else has the port.

    Args:
        port: On `ADDRESS`.
        known: It was ours in an earlier run, whose last connections may be in TIME_WAIT still;
            they stand in the way of a stranger, not of us.

    Raises:
        OSError: There can be no socket at all, such as for want of file descriptors.
    """
    holder = _bound(port, shared=False)
    if holder is None and known and _only_in_time_wait(port):
        holder = _bound(port, shared=True)
    if holder is not None:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":
            holder.close()
    return holder


def _bound(port: int, *, shared: bool) -> socket.socket | None:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
        holder.bind((ADDRESS, port))
    except OSError as error:
        holder.close()
        if error.errno not in _TAKEN:
            raise
        return None
    return holder


def _only_in_time_wait(port: int) -> bool:
    """Say whether all that is left of a port are connections that ended (proc(5), /proc/net/tcp)."""
    states: set[str] = set()
    for table in _TABLES:
        try:
            lines = table.read_text("ascii").splitlines()[1:]
        except OSError:
            continue  # no IPv6 here, or no Linux
        for _number, local, _remote, state, *_rest in map(str.split, lines):
            if int(local.rpartition(":")[2], 16) == port:
                states.add(state)
    return states == {_TIME_WAIT}
