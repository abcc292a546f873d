"""
How late the event loop of a sidecar of ours has been: read from its metrics, before and after a load.

The histogram says into which bucket the latest beat fell, so what is told is that bucket's upper
bound: the lag was that much at most.
"""

import http.client
import re
from collections.abc import Mapping
from math import inf

Beats = Mapping[float, int]
"""How many came up to so many seconds late, by bound."""

_BUCKET = re.compile(r'^mesh_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


def read(admin: int) -> Beats:
    """
    Return the beats so far of the sidecar with this admin port.

    Raises:
        OSError: It does not answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return parsed(connection.getresponse().read().decode())
    finally:
        connection.close()


def parsed(text: str) -> Beats:
    return {float(bound): int(float(count)) for bound, count in _BUCKET.findall(text)}


def greatest(before: Beats, after: Beats) -> float:
    """Return the least bound, in milliseconds, that no beat between two readings has exceeded."""
    beats = {bound: count - before.get(bound, 0) for bound, count in after.items()}
    return 1000 * min(bound for bound, count in beats.items() if count == beats[inf])
