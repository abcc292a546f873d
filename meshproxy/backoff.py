"""
Full-jitter backoff: how long to wait before trying again.

Each failure doubles the longest wait, and the wait itself is drawn evenly from zero up to it.
Drawing from the whole range, rather than adding a little noise, is what keeps a thousand
sidecars whose control plane has restarted from coming back in waves (Brooker, "Exponential
Backoff And Jitter").
"""

from collections.abc import Callable
from random import random


class Backoff:
    def __init__(
        self, base: float = 0.2, cap: float = 15.0, draw: Callable[[], float] = random
    ) -> None:
        self.base = base
        self.cap = cap
        self._draw = draw
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Backoff {self._failures} failures, at most {self.ceiling:.1f} s>"

    @property
    def ceiling(self) -> float:
        """The longest wait that the next failure can cause."""
        # An exponent of 32 is far above any cap; without a bound the power overflows one day.
        return min(self.cap, self.base * 2.0 ** min(self._failures, 32))

    def next(self) -> float:
        """Count a failure and return the seconds to wait."""
        wait = self.ceiling * self._draw()
        self._failures += 1
        return wait

    def reset(self) -> None:
        """Forget all failures: something has worked."""
        self._failures = 0
