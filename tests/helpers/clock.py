"""Processes whose clock is wrong (libfaketime), and goes as fast as ever."""

from pathlib import Path

import pytest

_LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)

needs_faketime = pytest.mark.skipif(
    _LIBRARY is None, reason="not installed: libfaketime (package faketime)"
)


class Clock:
    """
    What a process takes for the time of day: ours, and so many seconds more.

    Attributes:
        environment: Variables for the process.
    """

    def __init__(self, directory: Path, ahead: int) -> None:
        self._file = directory / f"clock{ahead:+}"
        self.set(ahead)
        self.environment = {
            "LD_PRELOAD": str(_LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # so a running process sees what is set
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # which event loops go by
        }

    def set(self, ahead: int) -> None:
        """Have it be so many seconds ahead from now on; behind, where negative."""
        self._file.write_text(f"{ahead:+}\n")
