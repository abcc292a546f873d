"""
Debounce: wait for quiet before acting on a burst of changes, but not forever.

Pure: time is an argument.
"""


class Debounce:
    """
    Attributes:
        quiet: Seconds without a further change after which to act.
        most: Seconds after the first change after which to act in any case.
    """

    def __init__(self, quiet: float = 0.1, most: float = 10.0) -> None:
        self.quiet = quiet
        self.most = most
        self._first: float | None = None
        self._last = 0.0

    def touch(self, now: float) -> None:
        """Note a change."""
        if self._first is None:
            self._first = now
        self._last = now

    def due(self) -> float | None:
        """Return when to act, or None when nothing has changed."""
        if self._first is None:
            return None
        return min(self._last + self.quiet, self._first + self.most)

    def clear(self) -> None:
        """Note that the changes were acted upon."""
        self._first = None
