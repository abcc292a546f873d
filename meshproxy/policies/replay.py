"""
Replay: the bodies of requests, kept for another attempt, and how much memory they may take up.

Theory of operation
===================

A request that may be tried again holds its body until an answer has begun (`retry.py`).  Each body has
a bound, `replay_limit`; but a thousand requests that wait for a slow service, times as many services
as there are, have none.  So all kept bodies of a process together have one.  A request that would
pass it is sent once, like one whose body is too large by itself: it is neither refused nor slowed
down, it is only not tried again.  Nor is a body kept while the process has no memory for more
connections (`downstream/admission.py`): what is kept on trust is the first thing to go without.

**Counted is only what is large.**  A body of up to 4 KiB (`Retry.uncounted`) is less than its head may
be, and comes with it as a rule; to count it would cost every such request something.  So the sum may
be above the bound by so much for each request under way.

**Given back with the list.**  The bytes are held as long as somebody has the list that they are in, so
they are counted for exactly as long: `Kept` gives back what it has taken when it goes, whichever of
the many ends of a request that is, and nobody has to remember.

**Small pieces are joined.**  One of two bytes takes up fifty, which nobody would have counted.  So each
`PIECES` that have come are made one, once.

Called from: `Exchange.on_request_data`, `Exchange.on_upstream_ready`.
Configured by: `limits.replay` of the bootstrap file.
"""

from collections.abc import Callable
from typing import Final

MOST: Final = 32 << 20
"""Bytes of all bodies that are kept, where nothing else is said."""

PIECES: Final = 64


class ReplayMemory:
    """
    What the kept bodies of a process take up.

    Attributes:
        most: Bytes that they may.
        held: Bytes that they do.
    """

    __slots__ = ("_crowded", "held", "most")

    def __init__(self, most: int = MOST, crowded: Callable[[], bool] = lambda: False) -> None:
        """`crowded` says whether the process has no memory to spare."""
        self.most = most
        self.held = 0
        self._crowded = crowded

    def __repr__(self) -> str:
        return f"<ReplayMemory {self.held} of {self.most}>"

    def keep(self, body: list[bytes], size: int) -> "Kept | None":
        """
        Keep a body, or what has come of it since it was kept; return None where there is no room.

        Args:
            body: Its pieces; whoever has them had better let go of them for what is returned.
            size: Bytes of all of them.
        """
        kept = body if isinstance(body, Kept) else None
        more = size if kept is None else size - kept.counted
        if self.held + more > self.most or self._crowded():
            return None
        if kept is None:
            kept = Kept(body)
            kept.memory = self
            kept.counted = kept.joined = 0
        kept.counted += more
        self.held += more
        if len(kept) - kept.joined >= PIECES:
            kept[kept.joined :] = [b"".join(kept[kept.joined :])]
            kept.joined += 1
        return kept


class Kept(list[bytes]):
    """
    A body that is counted.

    Attributes:
        memory: Where.
        counted: Bytes.
        joined: So many of its first pieces were made of many.
    """

    __slots__ = ("counted", "joined", "memory")

    memory: ReplayMemory
    counted: int
    joined: int

    def __del__(self) -> None:
        self.memory.held -= self.counted
