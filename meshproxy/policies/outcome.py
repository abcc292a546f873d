"""
What an attempt says about the server that it went to.

The breaker, the outlier detector and the load balancer all learn from attempts, and all mean the
same by "failed", so it is decided here and once.  The question is never whether the client got what
it wanted, but whether another server, or the same one later, could be expected to do better:

| outcome | answers | gRPC | no answer |
|---|---|---|---|
| `SUCCESS` | below 500 | all other codes, the client's mistakes and `RESOURCE_EXHAUSTED` too | |
| `SERVER_ERROR` | 5xx, but those below | `UNKNOWN`, `DATA_LOSS` | |
| `GATEWAY_ERROR` | 502, 503, 504 | `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL` | |
| `LOCAL_FAILURE` | | | connect, handshake, reset, timeout, not HTTP |
| `NOTHING` | | | cancelled, or failed for want of something here |

A 500 is what a server says that is there and has tried: it may be a mistake in one request of a
thousand.  A 503 is said by, or for, one that is not.  gRPC's `INTERNAL` is what its libraries and
proxies call a broken transport (`upstream-protocol-error` in `refusal.py`, for one), where `UNKNOWN`
is what they make of an exception in a handler, gRPC's 500.

A client that leaves has proved nothing, whatever its reason was.  Nor has a proved mesh proxy that
sheds load (`overloaded`): its app is well and does all it can.  Were that a failure, an overload
would eject one endpoint after the other, each leaving its load to the rest; and a breaker that opens
because unimportant requests are turned away would stop the critical ones, too.  Only the load
balancer minds: less busy endpoints are there to be preferred.
"""

from typing import Final

from meshproxy.message import Fields, value_of

REFUSAL: Final = b"x-mesh-refusal"
SHED: Final = "overloaded"

SUCCESS: Final = 0
SERVER_ERROR: Final = 1
GATEWAY_ERROR: Final = 2
LOCAL_FAILURE: Final = 3
NOTHING: Final = 4

GATEWAY_STATUSES: Final = frozenset({502, 503, 504})

_GRPC: Final = {
    "2": SERVER_ERROR,  # UNKNOWN
    "4": GATEWAY_ERROR,  # DEADLINE_EXCEEDED
    "13": GATEWAY_ERROR,  # INTERNAL
    "14": GATEWAY_ERROR,  # UNAVAILABLE
    "15": SERVER_ERROR,  # DATA_LOSS
}

_NOT_ITS_FAULT: Final = frozenset(
    {
        "downstream-closed",  # nobody waited any longer
        "overflow",  # our limits
        "not-ready",  # our certificate
        "fields-too-large",  # the client's head
        "body-timeout",  # the client's body
        "upgrade-not-supported",  # what the client asked for
        SHED,  # the peer's, not the app's
    }
)


def shed(said: Fields | None) -> bool:
    """Say whether an answer, of whose mesh fields these are, comes from a peer that sheds load."""
    return said is not None and value_of(said, REFUSAL) == SHED.encode()


def outcome(status: int, grpc_status: str | None, code: str) -> int:
    """
    Return one of the above.

    Args:
        status: Of the answer; 0 where nobody looked, or where there is none.
        grpc_status: None where it is not gRPC.
        code: Why there is no complete answer, as in `refusal.py`; empty where there is.
    """
    if code:
        return NOTHING if code in _NOT_ITS_FAULT else LOCAL_FAILURE
    if status >= 500:
        return GATEWAY_ERROR if status in GATEWAY_STATUSES else SERVER_ERROR
    if grpc_status is None:
        return SUCCESS
    return _GRPC.get(grpc_status, SUCCESS)
