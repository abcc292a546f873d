"""
Log lines leave by a thread of their own, so that nobody waits for whoever reads them.

A pipe whose reader has stopped, a terminal at Ctrl-S, a disk that hangs: a plain write would stand
still there, and the event loop, and with it all traffic.  Here it is the thread that stands still.
Lines wait for it in memory, as many as `MOST`; what comes beyond that is lost, and so is what cannot
be written at all (a full disk).  The first line that can be written again is preceded by one that
says how many were.
"""

import logging
import os
import queue
import select
import threading
from typing import Final

MOST: Final = 1_000
"""Records that may wait."""

LONGEST: Final = 16_384
"""Bytes of a record that are written: with `MOST`, a bound for the memory that logging may take."""

GOODBYE: Final = 1.0
"""Seconds at the end of the process for what still waits."""


class LogWriter(logging.Handler):
    """
    Writes records to a file descriptor, now or later.

    Attributes:
        lost: Records that were not, and will not be, written.
    """

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._torn = False  # the last line ends in its middle
        self._told = 0
        # Each is counted in one place, by one thread.
        self._too_many = 0
        self._failed = 0

    @property
    def lost(self) -> int:
        return self._too_many + self._failed

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written; its thread is started with the first."""
        if self._waiting.qsize() >= MOST:
            self._too_many += 1
            return
        line = self.format(record).encode(errors="backslashreplace")
        if len(line) > LONGEST:
            line = line[:LONGEST] + b" ... (%d bytes left out)" % (len(line) - LONGEST)
        self._waiting.put(line + b"\n")
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait, for a moment, until everything is written."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(GOODBYE)
            self._thread = None
        super().close()

    # In the thread --------------------------------------------------------------------------------

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            lost = self.lost
            if lost > self._told:
                note = f"{lost - self._told} log records were lost: they could not be written\n"
                if self._out(note.encode()):
                    self._told = lost
            if not self._out(line):
                self._failed += 1

    def _out(self, line: bytes) -> bool:
        rest = memoryview(b"\n" + line if self._torn else line)
        whole = len(rest)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # somebody else has made it non-blocking
                    select.select([], [self._descriptor], [])
        except OSError:
            self._torn = self._torn or len(rest) < whole
            return False
        self._torn = False
        return True
