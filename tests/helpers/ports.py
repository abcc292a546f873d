"""Ports that are ours for as long as the tests run."""

import random
import socket

# Below what the kernel hands out by itself (32768 …) and what a local mesh allocates (20000 …):
# an outgoing connection of anybody would take a port there between our look and its use.
RANGE = (10_000, 19_999)

_reserved: list[socket.socket] = []


def free_port(address: str = "127.0.0.1") -> int:
    """
    Return a port that nobody has, and that no other call of any process will return.

    It stays bound, without listening: who asks for it with SO_REUSEADDR (as servers do) may listen
    on it, who probes it without, as this function does, may not have it.
    """
    while True:
        port = random.randint(*RANGE)
        sock = socket.socket()
        try:
            sock.bind((address, port))
        except OSError:
            sock.close()
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _reserved.append(sock)
        return port
