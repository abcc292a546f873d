"""
How much the opaque connections to a service carry: is a handshake worth it for the next one?

A connection of its own between the sidecars costs the pair about 3 ms of CPU for the handshake; a
stream on the shared one costs some 0.4 s more for each GB.  So it is worth it from 8 MiB on; what is
taken is twice that, because it also takes a round trip or two before the first byte.

Nobody knows beforehand what a connection will carry.  But those to the same port are alike: backups go
to where backups went.  What counts is the **mean**, for so do cost and gain: of ten connections of
which one carries a gigabyte, all gain by it.  Each counts when it ends, or as soon as it has carried
`MOST`; a replication that runs for days counts while it runs.  The mean moves by a quarter of the way
each time: one huge connection convinces it, and after three small ones it doubts; after a row of
huge ones, after nine.
"""

from typing import Final

LARGE: Final = 16 << 20
"""Bytes that connections carry on average, from which on the next has one of its own."""

MOST: Final = 8 * LARGE
"""Bytes from which on it makes no difference: a single huge one is not to be remembered for long."""

WEIGHT: Final = 0.25


class FlowSizes:
    """
    Of the connections to one service port.

    Attributes:
        mean: Bytes, of the last ones most.
    """

    __slots__ = ("_seen", "large", "mean", "most")

    def __init__(self, large: int = LARGE) -> None:
        self.large = large
        self.most = large * MOST // LARGE
        self.mean = 0.0
        self._seen = 0

    @property
    def bulk(self) -> bool:
        """The next connection is likely to be worth a handshake."""
        return self.mean >= self.large

    def observe(self, size: int) -> None:
        """Learn what one has carried."""
        self._seen += 1
        weight = max(WEIGHT, 1.0 / self._seen)
        self.mean += (min(size, self.most) - self.mean) * weight


class Flow:
    """One connection that counts: by the bytes that it has carried, both ways."""

    __slots__ = ("_left", "_sizes")

    def __init__(self, sizes: FlowSizes) -> None:
        self._sizes = sizes
        self._left = sizes.most  # until it counts; negative once it has

    def moved(self, amount: int) -> None:
        """It has carried so many bytes more."""
        left = self._left
        if left > 0:
            left -= amount
            if left <= 0:
                left = -1
                self._sizes.observe(self._sizes.most)
            self._left = left

    def ended(self) -> None:
        if self._left > 0:
            self._sizes.observe(self._sizes.most - self._left)
            self._left = -1
