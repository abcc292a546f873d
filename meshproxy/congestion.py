"""
Congestion control of what never leaves the machine: between app and sidecar, on a laptop everything.

BBR sends no faster than it has measured that the path carries, and has a timer let go the next packets
(it *paces*).  A path that ends on the same machine has nothing to be measured, and the timers take a tenth
to a fifth of what a large transfer costs us.  So where BBR is the host's default, our ends of such
connections use Reno, which every kernel has and everybody may choose: without losses it sends what there
is.  What leaves the machine stays as the host wants it.  Where the default does not pace (Linux's own,
CUBIC, does not), nothing is changed at all.
"""

import socket
from pathlib import Path
from typing import Final

from meshproxy.tunnel import Options

_DEFAULT: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")  # IPv6 has none of its own
_PACES: Final = "bbr"  # and what its name begins with: bbr2, bbr3


def unpaced(default: Path = _DEFAULT) -> Options:
    """Return what makes a socket send what there is; nothing, where sockets do so anyway."""
    try:
        name = default.read_text()
    except OSError:  # not Linux
        return ()
    if not name.startswith(_PACES):
        return ()
    return ((int(socket.IPPROTO_TCP), int(socket.TCP_CONGESTION), b"reno"),)


_UNPACED: Final = unpaced()


def options_at(address: str, options: Options = _UNPACED) -> Options:
    """
    Return the options of a socket of which one end is this IP address: none, where it may lead outside.

    With an address of the loopback at either end, a connection stays on the machine, unless somebody's
    packet filter says otherwise.
    """
    within = address == "::1" or (address.startswith("127.") and address.replace(".", "").isdigit())
    return options if within else ()
