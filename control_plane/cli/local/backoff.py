"""
How long to wait before a process that ended is started again: 1 s, doubled each time, at most 30 s.

A process that had lived long enough is taken to have been well; its next end starts from 1 s again.
"""

FIRST = 1.0
LONGEST = 30.0
WELL_AFTER = 30.0


class Backoff:
    """Counts the failures of one process; all times in seconds."""

    def __init__(self) -> None:
        self._next = FIRST

    def after(self, lived: float) -> float:
        """Return how long to wait now that the process ended after `lived` seconds."""
        if lived >= WELL_AFTER:
            self._next = FIRST
        wait = self._next
        self._next = min(LONGEST, self._next * 2)
        return wait
