"""
Flow: how bytes enter and leave a connection, and how a slow side stops a fast one.

    slow reader ⇒ its transport calls `pause_writing` ⇒ `on_blocked`
                ⇒ the exchange pauses the other side (`exchange.py`, section 5): `pause_reading`
                ⇒ the kernel's buffers fill ⇒ the fast writer waits

So a body of any size passes through a few hundred KiB of memory.  Where there are so many that even
that is too much, all of them make do with less (`Turn.tight`).  Two measured choices:

* All connections of a process read into one shared buffer (`BufferedProtocol`).  With the plain
  `Protocol`, uvloop allocates 256 KiB for every read of a TLS connection: mmap, mremap, munmap.
* A connection writes once per turn of the loop.  Words that belong together (head, body, end)
  then leave in one system call and one TLS record; writing each at once cost 20 % more CPU.  All
  connections share the one callback that ends a turn (`Turn`).  What single connections say to one
  of many exchanges leaves a turn later still, when others have spoken (`multiplex.py`).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

HIGH_WATER: Final = 256 * 1024
"""Bytes waiting in a transport above which the other side is paused."""

LOW_WATER: Final = 64 * 1024
"""Bytes waiting in a transport below which the other side goes on."""

FLUSH_AT: Final = 64 * 1024
"""Bytes collected within one turn of the loop that leave without waiting for its end."""

RECEIVED: Final = memoryview(bytearray(256 * 1024))
# get_buffer → read → buffer_updated never interleave between connections: one buffer serves all.

TIGHT: Final = 16 * 1024
"""Bytes that may wait in a transport, and that one read without TLS brings, while memory is short."""

MUCH: Final = 2 * 1024 * 1024
"""Bytes after which the memory is looked at: a turn of the loop may bring a hundred times as much."""

COUNTED: Final = 4096
"""Bytes of a read that count for it; less is not much, however often it comes between two looks."""

_LITTLE: Final = RECEIVED[:TIGHT]


class Turn:
    """
    What the connections of a loop share: the end of its turns, and how much each of them may hold.

    A callback of the loop costs more than a short message's way into it: one serves all.

    Attributes:
        waiting: Those that will be flushed; whoever is the first to wait calls `schedule` before.
        late: Those that will be flushed at the end of the next turn, the same with `schedule_late`.
        joined: What is passed on now has come over a connection of many exchanges, so as many as
            there were have come together.
        tight: Memory is short.
        high, low: Bytes waiting to be sent above which the other side is paused, and below which it
            goes on.
        flush_at: Bytes collected within one turn that leave without waiting for its end.
        on_much: Called when `MUCH` has come, amid whatever is done with it.
    """

    __slots__ = (
        "_came",
        "_loop",
        "flush_at",
        "high",
        "joined",
        "late",
        "low",
        "on_much",
        "tight",
        "waiting",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.waiting: list[Connection] = []
        self.late: list[Connection] = []
        self.joined = False
        self.on_much: Callable[[], None] | None = None
        self._came = 0
        self.tighten(False)

    def tighten(self, tight: bool) -> None:
        """Let each hold little from now on, or as much as serves it best."""
        self.tight = tight
        self.high, self.low = (TIGHT, TIGHT // 4) if tight else (HIGH_WATER, LOW_WATER)
        self.flush_at = TIGHT if tight else FLUSH_AT

    def came(self, amount: int) -> None:
        """Count a read that brought `COUNTED` or more."""
        self._came += amount
        if self._came >= MUCH:
            self._came = 0
            if self.on_much is not None:
                self.on_much()

    def schedule(self) -> None:
        """Have an end of this turn."""
        self._loop.call_soon(self._end)

    def schedule_late(self) -> None:
        """Have an end of the turn after this one: the loop looks for what has come in between."""
        self._loop.call_soon(self._loop.call_soon, self._end_late)

    def _end(self) -> None:
        waiting, self.waiting = self.waiting, []
        self._flush(waiting)

    def _end_late(self) -> None:
        late, self.late = self.late, []
        self._flush(late)

    def _flush(self, connections: "list[Connection]") -> None:
        rest = iter(connections)
        try:
            for connection in rest:
                connection.flush()
        finally:
            others = list(rest)  # none, unless one has raised: they are not to blame
            if others:
                self.schedule()
                self.waiting += others


_turns: Final[WeakKeyDictionary[Any, Turn]] = WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """Return the turn that all connections of a loop share."""
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = Turn(loop)
    return turn


def as_protocol(connection: "Connection") -> asyncio.BufferedProtocol:
    """Return it as asyncio's functions want it."""
    return cast("asyncio.BufferedProtocol", connection)


class Connection:
    """
    One transport: what arrives goes to `on_bytes`, what is written is joined and flushed.

    An `asyncio.BufferedProtocol` by its methods, not by descent: compiled classes descend only from
    compiled ones.  The legal order of calls is asyncio's: made → bytes* → eof? → lost.
    """

    __slots__ = ("_out", "blocked", "loop", "transport", "turn")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.blocked = False
        self.turn = turn_of(loop)
        self._out = b""

    # Asyncio's side ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = stream = cast("asyncio.Transport", transport)
        stream.set_write_buffer_limits(self.turn.high, self.turn.low)
        self.on_connected()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        transport = self.transport
        if not self.turn.tight or transport is None:
            return RECEIVED
        # What TLS has taken from the kernel is decrypted at once: with a small buffer, uvloop comes back
        # for the rest, and drops it where the peer has closed meanwhile.
        return RECEIVED if transport.get_extra_info("ssl_object") is not None else _LITTLE

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes >= COUNTED:
            self.turn.came(nbytes)
        self.on_bytes(RECEIVED[:nbytes].tobytes())

    def data_received(self, data: bytes) -> None:
        """A loop other than uvloop asks for descent before it uses the two above."""
        self.on_bytes(data)

    def pause_writing(self) -> None:
        self.blocked = True
        self.on_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        self.mark()  # what it was told while memory was short holds no longer
        if not self.blocked:
            self.on_writable()

    def eof_received(self) -> bool:
        return self.on_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._out = b""
        self.on_lost(exc)

    @property
    def address(self) -> str:
        """The IP address of the other end; empty where it has none, or has gone."""
        peer = None if self.transport is None else self.transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def mark(self) -> None:
        """Tell the transport how much it may hold now; may block at once."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.set_write_buffer_limits(self.turn.high, self.turn.low)

    @property
    def unsent(self) -> int:
        """How many bytes wait for the other end to take them."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

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
        if out:
            if len(out) + len(data) >= self.turn.flush_at and self.transport is not None:
                self._out = b""
                self.transport.writelines((out, data))  # one system call, and nothing is copied
                if self.turn.tight:
                    self.mark()
            else:  # short of that, joining two at a time is as fast as a list, and one step less
                self._out = out + data
            return
        self._out = data
        turn = self.turn
        if not turn.waiting:
            turn.schedule()
        turn.waiting.append(self)
        if len(data) >= turn.flush_at:
            self.flush()

    def flush(self) -> None:
        """Send now what was collected."""
        data, self._out = self._out, b""
        if data and self.transport is not None:
            self.transport.write(data)
            if self.turn.tight:
                self.mark()

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
        self._out = b""
        if self.transport is not None:
            self.transport.abort()
