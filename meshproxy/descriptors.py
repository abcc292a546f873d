"""
Descriptors that are set aside: for who has to get in when everybody else has taken all there are.

A process has so many descriptors and no more (``ulimit -n``), and who asks first gets the next one.
Where clients, or what they make us dial, have taken the last one, a probe of readiness is refused, and
the proxy is restarted just when it has most to do.

So the process lives with fewer than it may have (`set_aside` lowers the soft limit, which whoever
opens something meets), and the few others are for who borrows them (`borrowed` raises it for the
moment in which something is opened).  What is open stays open under a lower limit.  Nothing has to be
counted, and nobody has to know: not the loop, not the libraries.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

RESERVED: Final = 72
"""For the admin pages: a few more than there may be visits."""

_aside = 0


def set_aside(count: int = RESERVED) -> None:
    """Let others have so many fewer, but never less than half; once in a process that is ours."""
    global _aside  # noqa: PLW0603  # the limit is the process's, too
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _aside = min(count, soft // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - _aside, hard))


@contextmanager
def borrowed() -> Iterator[None]:
    """Open something although all others are taken; what takes longer than a call is not for here."""
    if not _aside:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft + _aside, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
