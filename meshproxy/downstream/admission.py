"""
Admission: how many connections this process takes, and when it has no memory for more.

Each connection costs descriptors and memory before it has asked for anything, so a flood of them has
to be stopped where they are accepted.  Two bounds, both per process:

* **Connections.**  By default as many as descriptors allow when each needs a second one upstream, and
  some are left for the admin pages, the control plane and files.  One listener may have four fifths
  of them, so that a flood from outside leaves room for the app's own calls, and the other way round.
* **Memory.**  What a connection holds is bounded (see `docs/limits.md`), but their sum is more than a
  small container has.  So above a share of the container's memory (its control group says how
  much that is), nobody is taken who was not there before.  It is the memory of the whole process that
  counts, as the kernel sees it: a sum of our own would forget half.

Nor is that all: who holds memory and does not let go of it is ended (see `relief.py`).

Who comes when it is full is told so, if it speaks HTTP, and is reset otherwise (see `Listener`).
Nothing is remembered: as soon as there is room again, the next one is served.
"""

import os
import resource
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from meshproxy import malloc
from meshproxy.flow import Connection

RESERVED: Final = 64
"""Descriptors that are for nobody's connections."""

MOST: Final = 20_000
"""Connections, however many descriptors there are: idle ones cost some 10 KiB each."""

SHARE: Final = 0.8
"""Of all connections, for one listener; of the container's memory, for the process."""

AIM: Final = 0.9
"""
Share of the memory that is left in use where it is short; with less of a distance, the next one
would be refused.
"""

LOOK: Final = 0.1
"""Seconds for which a look at the memory holds."""

TRIM: Final = 0.5
"""Seconds between two requests to the allocator, each of which takes it some milliseconds."""

TRIM_EARLY: Final = 5.0
"""The same below the limit, where a process may stay for good."""

_PAGE: Final = resource.getpagesize()
_GROUPS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_NO_LIMIT: Final = 1 << 60  # what version 1 says is near 2^63


class Listener(Protocol):
    """What has connections."""

    @property
    def direction(self) -> str: ...
    @property
    def connections(self) -> int: ...
    @property
    def accepted(self) -> Iterable[Connection]:
        """Those of them that have come so far as to be told something."""


class Admission:
    """
    Attributes:
        connections: As many as there may be.
        memory: Bytes that the process may take; 0 for any number.
        accept_rate: Connections that one listener may take in a second; 0 for any number.
        in_use: Bytes that the process took when somebody last looked.
        listeners: Who has connections.
    """

    def __init__(
        self,
        connections: int | None = None,
        memory: int | None = None,
        accept_rate: float = 0.0,
        *,
        workers: int = 1,
        now: Callable[[], float] = lambda: 0.0,
        resident: Callable[[], int] | None = None,
        trim: Callable[[], None] = malloc.trim,
    ) -> None:
        """Take the bounds that are given, and find out the others."""
        possible = most_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.connections = min(connections or MOST, possible)
        self.memory = int(SHARE * container_memory() / workers) if memory is None else memory
        self.accept_rate = accept_rate / workers
        self.listeners: set[Listener] = set()
        self._sure = 0  # how many more there may be at least, whoever has them
        self._now = now
        self._resident = resident or resident_memory
        self._trim = trim
        self._looked = -LOOK
        self._trimmed = -TRIM
        self._trimmed_early = -TRIM_EARLY
        self.in_use = 0

    def join(self, listener: Listener) -> None:
        """Count its connections."""
        self.listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        """It has none any more, and will have none."""
        self.listeners.discard(listener)

    def room(self, listener: Listener, wanted: int = 1) -> int:
        """Return how many more connections this listener may take now; exactly, if less than `wanted`."""
        if self.short_of_memory:
            return 0
        if self._sure < wanted:
            self._sure = self.connections - sum(other.connections for other in self.listeners)
        return min(self._sure, int(self.connections * SHARE) - listener.connections)

    def taken(self) -> None:
        """
        One has been taken of what there was `room` for.

        Those that end meanwhile are counted only when nothing seems to be left: a mesh may have as
        many listeners as services, too many to ask for each connection.
        """
        self._sure -= 1

    @property
    def short_of_memory(self) -> bool:
        """The process takes more than it may."""
        if not self.memory:
            return False
        if self._now() - self._looked >= LOOK:
            self.look()
        return self.in_use > self.memory

    def look(self) -> None:
        """Find out how much is in use, and give back what is not, where that would be too much."""
        self._looked = now = self._now()
        self.in_use = self._resident()
        if self.in_use > self.memory:  # what the allocator only keeps must keep nobody out
            wanted = now - self._trimmed >= TRIM
            self._trimmed = now if wanted else self._trimmed
        else:
            wanted = self.in_use > self.memory * AIM and now - self._trimmed_early >= TRIM_EARLY
            self._trimmed_early = now if wanted else self._trimmed_early
        if wanted:
            self._trim()
            self.in_use = self._resident()


def most_connections(descriptors: int) -> int:
    """Return how many connections so many descriptors allow."""
    return max((descriptors - RESERVED) // 2, 1)


def resident_memory() -> int:
    """Return what the process takes of the machine's memory."""
    return int(os.pread(_statm(), 100, 0).split()[1]) * _PAGE


@cache
def _statm() -> int:
    # Kept open: what memory is short of must be known when descriptors are short, too.
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def container_memory() -> int:
    """Return what our control group may take; 0 where nobody has set a limit."""
    for path in _GROUPS:
        try:
            said = path.read_text().strip()
        except OSError:
            continue
        if said.isdigit() and int(said) < _NO_LIMIT:
            return int(said)
    return 0
