"""What both protocols can do to a connection."""

import asyncio
import socket
import struct

GARBAGE = b"\x16\x03\x01 this is no HTTP at all \r\n\r\n" * 4


def reset(writer: asyncio.StreamWriter) -> None:
    """End with RST: what the peer has not read yet may be lost, and it is told so."""
    if writer.is_closing():
        return
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
