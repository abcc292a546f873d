"""
Where a captured connection was meant to go: the kernel remembers.

A REDIRECT rule changes a connection's destination to one of our listeners.  The address that the
client had asked for stays in the kernel's connection tracking, which netfilter hands out through a
socket option of its own, on the accepted socket: one for IPv4 and one for IPv6, with the same
number on different levels (``linux/netfilter_ipv4.h``, ``linux/netfilter_ipv6/ip6_tables.h``).
"""

import socket
import struct

Address = tuple[str, int]
"""IP address in its canonical form, and port."""

SO_ORIGINAL_DST = IP6T_SO_ORIGINAL_DST = 80

# struct sockaddr_in and sockaddr_in6: the family in this machine's byte order, which nobody needs
# here, then port and address in the network's.  (In the second, flow label between them.)
_SOCKADDR_IN = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6 = struct.Struct("!2xH4x16s4x")


def original_destination(sock: socket.socket) -> Address | None:
    """
    Return where a client wanted to go, or None where it wanted to come here.

    Whoever connects to a capturing listener by its own address was not redirected to it.  To pass
    such a connection on to where it wanted to go would be to pass it to ourselves, for ever.
    """
    here = local_address(sock)
    try:
        if sock.family == socket.AF_INET or ":" not in here[0]:
            data = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, _SOCKADDR_IN.size)
            there = parse_ipv4(data)
        else:
            data = sock.getsockopt(socket.IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
            there = parse_ipv6(data)
    except OSError:  # ENOENT: not tracked; ENOPROTOOPT: no connection tracking in this kernel
        return None
    return None if there == here else there


def local_address(sock: socket.socket) -> Address:
    """Return our end of a connection; an IPv4 one on an IPv6 socket is what it is, IPv4."""
    host, port, *_ = sock.getsockname()
    host, _, _interface = host.partition("%")  # of a link-local address
    return host.removeprefix("::ffff:") if "." in host else host, port


def parse_ipv4(sockaddr: bytes) -> Address:
    """Return what a ``struct sockaddr_in`` holds."""
    port, address = _SOCKADDR_IN.unpack(sockaddr)
    return socket.inet_ntop(socket.AF_INET, address), port


def parse_ipv6(sockaddr: bytes) -> Address:
    """Return what a ``struct sockaddr_in6`` holds; an IPv4-mapped address as the IPv4 it is."""
    port, address = _SOCKADDR_IN6.unpack(sockaddr)
    return canonical(socket.inet_ntop(socket.AF_INET6, address)), port


def canonical(address: str) -> str:
    """
    Return the one form of an IP address that we compare.

    Raises:
        OSError: It is none.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    plain = socket.inet_ntop(family, socket.inet_pton(family, address))
    return plain.removeprefix("::ffff:") if plain.startswith("::ffff:") and "." in plain else plain
