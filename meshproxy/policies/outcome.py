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
| `NOTHING` | | | cancelled, too late for a hurried caller, or failed for want of something here |

A 500 is what a server says that is there and has tried: it may be a mistake in one request of a
thousand.  A 503 is said by, or for, one that is not.  gRPC's `INTERNAL` is what its libraries and
proxies call a broken transport (`upstream-protocol-error` in `refusal.py`, for one), where `UNKNOWN`
is what they make of an exception in a handler, gRPC's 500.

A client that leaves has proved nothing, whatever its reason was.  Nor has one that would not wait:
a caller may allow a millisecond, and no server is ill that needs two.  So what is too late counts
where we have set the time, or where the caller has allowed `FAIR` seconds; else anybody could have
healthy servers ejected and breakers opened, for all others, with a field of the request.  (Envoy
counts each timeout, as an error of local origin, and Linkerd each 5xx, whoever has asked.)  The load balancer alone minds that the answer would have taken longer.

Nor has an endpoint proved to be ill that breaks off amid a request's body: so do servers, well and
whole, with bodies that are too large, and their answer that says so is often lost.  (Not so gRPC's
streams, which are amid their request for as long as they last.)

Nor has a proved mesh proxy proved anything that sheds load (`overloaded`, `overflow`): its app is well and does all it can.  Were that a failure, an overload
would eject one endpoint after the other, each leaving its load to the rest; and a breaker that opens
because unimportant requests are turned away would stop the critical ones, too.  Only the load
balancer minds: less busy endpoints are there to be preferred.
"""

from typing import Final

from meshproxy.message import Fields, value_of

REFUSAL: Final = b"x-mesh-refusal"
SHED: Final = "overloaded"
HURRIED: Final = "hurried"
"""What is said of an attempt that failed because its caller had no time; no refusal has this code."""

UNHEARD: Final = "unheard"
"""The same, of one that its endpoint ended amid the request's body: it may be one that it will not take."""

FAIR: Final = 1.0
"""Seconds that a caller must have allowed, if it is to be held against the endpoint that they passed."""

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
        "memory-pressure",  # ours, and slow clients'
        "upgrade-not-supported",  # what the client asked for
        "access-denied",  # a policy about the caller
        SHED,  # the peer's, not the app's
        HURRIED,
        UNHEARD,
    }
)

BREAKS: Final = frozenset({"upstream-closed", "upstream-reset"})
"""What an endpoint, or a proxy before it, makes of a request that it will not hear to its end."""

_EXCUSES: Final = {
    b"overloaded": SHED,
    b"overflow": SHED,
    b"body-timeout": "body-timeout",
    b"memory-pressure": "memory-pressure",
}
_LATE: Final = "4"


def excuse(said: Fields | None) -> str:
    """
    Return the code of what is no fault of the endpoint's, although it failed; empty where it may be.

    Args:
        said: Mesh fields of an answer that a proved peer gave.
    """
    return "" if said is None else _EXCUSES.get(value_of(said, REFUSAL) or b"", "")


def shed(said: Fields | None) -> bool:
    """Say whether an answer, of whose mesh fields these are, comes from a peer that sheds load."""
    return excuse(said) == SHED


def is_late(status: int, grpc_status: str | None) -> bool:
    """Say whether an answer is that time was up."""
    return status == 504 or grpc_status == _LATE


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
