"""
Whose socket is at the other end of a connection that began on this machine?

The kernel tells anybody who asks for one TCP socket by its two addresses (sock_diag(7)).  One
question and its answer take some tens of microseconds.
"""

import os
import socket
import struct

from .original_destination import Address

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_ALL_STATES = 0xFFFF_FFFF
_NO_COOKIE = b"\xff" * 8
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # inet_diag_req_v2: family, protocol, extensions, states; then
_SOCKID = struct.Struct("!HH16s16s4x")  # inet_diag_sockid: ports, source, destination, interface
_UID = struct.Struct("=64xI")  # in inet_diag_msg, behind the same id and three counters


def owner(client: Address, server: Address) -> int | None:
    """
    Return the user whose socket is connected from `client` to `server`, as that socket sees it.

    None where there is no such socket, or the kernel does not tell.
    """
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    try:
        source, destination = (socket.inet_pton(family, host) for host, _ in (client, server))
        question = (
            _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES)
            + _SOCKID.pack(client[1], server[1], source, destination)
            + _NO_COOKIE
        )
        header = _HEADER.pack(
            _HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0
        )
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
            netlink.send(header + question)
            answer = netlink.recv(4096, socket.MSG_DONTWAIT)
    except OSError:
        return None
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:  # an error: there is none
        return None
    uid: int = _UID.unpack_from(answer, _HEADER.size)[0]
    return uid


def is_ours(client: Address, server: Address) -> bool:
    """Say whether this process's own user is at the other end."""
    return owner(client, server) == os.geteuid()
