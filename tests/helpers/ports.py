"""Ports that were free a moment ago."""

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on, below the range the kernel hands out by itself."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port
