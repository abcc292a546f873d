"""What both protocols can do to a connection."""

import asyncio
import socket
import struct

GARBAGE = b"\x16\x03\x01 this is no HTTP at all \r\n\r\n" * 4


async def flush(writer: asyncio.StreamWriter) -> None:
    """Wait until the kernel has all that was written: a reset would take the rest along."""
    while not writer.is_closing() and writer.transport.get_write_buffer_size():
        await asyncio.sleep(0)


def reset(writer: asyncio.StreamWriter) -> None:
    """End with RST: what the peer has not read yet may be lost, and it is told so."""
    if writer.is_closing():
        return
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
