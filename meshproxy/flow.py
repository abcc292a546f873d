"""
Flow: how bytes enter and leave a connection, and how a slow side stops a fast one.

    slow reader ⇒ its transport calls `pause_writing` ⇒ `on_blocked`
                ⇒ the exchange pauses the other side (`exchange.py`, section 5): `pause_reading`
                ⇒ the kernel's buffers fill ⇒ the fast writer waits

So a body of any size passes through a few hundred KiB of memory.  Two measured choices:

* All connections of a process read into one shared buffer (`BufferedProtocol`).  With the plain
  `Protocol`, uvloop allocates 256 KiB for every read of a TLS connection: mmap, mremap, munmap.
* A connection writes once per turn of the loop.  Words that belong together (head, body, end)
  then leave in one system call and one TLS record; writing each at once cost 20 % more CPU.
"""

import asyncio
from typing import cast

HIGH_WATER = 256 * 1024
"""Bytes waiting in a transport above which the other side is paused."""

LOW_WATER = 64 * 1024
"""Bytes waiting in a transport below which the other side goes on."""

FLUSH_AT = 64 * 1024
"""Bytes collected within one turn of the loop that leave without waiting for its end."""

RECEIVED = memoryview(bytearray(256 * 1024))
# get_buffer → read → buffer_updated never interleave between connections: one buffer serves all.


class Connection(asyncio.BufferedProtocol):
    """
    One transport: what arrives goes to `on_bytes`, what is written is joined and flushed.

    The legal order of calls is asyncio's: made → bytes* → eof? → lost.
    """

    __slots__ = ("_collected", "_out", "blocked", "loop", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.blocked = False
        self._out: list[bytes] = []
        self._collected = 0

    # Asyncio's side ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.on_connected()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        return RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        self.on_bytes(bytes(RECEIVED[:nbytes]))

    def pause_writing(self) -> None:
        self.blocked = True
        self.on_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        self.on_writable()

    def eof_received(self) -> bool:
        return self.on_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._out.clear()
        self.on_lost(exc)

    # Ours: what a protocol fills in -----------------------------------------------------------

    def on_connected(self) -> None: ...
    def on_bytes(self, data: bytes) -> None: ...
    def on_blocked(self) -> None: ...
    def on_writable(self) -> None: ...
    def on_lost(self, error: Exception | None) -> None: ...

    def on_eof(self) -> bool:
        """Return True to keep the writing half open (has no effect over TLS)."""
        return False

    # Ours: what a protocol calls --------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send `data` at the end of this turn of the loop, joined with what comes before then."""
        out = self._out
        if not out:
            self.loop.call_soon(self.flush)
        out.append(data)
        self._collected += len(data)
        if self._collected >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Send now what was collected."""
        out = self._out
        if not out:
            return
        data = b"".join(out)  # of one piece this is that piece, not a copy
        out.clear()
        self._collected = 0
        if self.transport is not None:
            self.transport.write(data)

    def pause_reading(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def close(self) -> None:
        """Close once everything written has left."""
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once; what has not left is lost."""
        self._out.clear()
        if self.transport is not None:
            self.transport.abort()
