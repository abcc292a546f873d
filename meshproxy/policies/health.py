"""
Health: what a series of checks says about an endpoint, and what one answer says.

Theory of operation.  A check is a question asked for its own sake.  It finds an endpoint ill before a
request does, and well again without risking one; but it asks *another* question than requests do,
of which the answer may be "fine" all day long.  So checks are off by default, and beside them
outlier detection watches the requests themselves.

One bad answer is no illness and one good answer no cure: `unhealthy` bad ones in a row take an endpoint
out, `healthy` good ones bring it back, and between the two nothing changes.  An endpoint is taken for
healthy until it is known not to be: a new one that has not been asked yet serves.

Called from: `upstream/health_check.py`.
"""

from typing import Final

from meshproxy.contract.policies import HealthCheckSpec

GRPC_PATH: Final = b"/grpc.health.v1.Health/Check"
"""Of gRPC's health protocol (grpc/doc/health-checking.md)."""

_PREFIX: Final = 5
"""Bytes before each message: a flag and its length (grpc/doc/PROTOCOL-HTTP2.md)."""

_SERVING: Final = b"\x08\x01"
"""HealthCheckResponse with field 1, `status`, = SERVING."""

GRPC_ANSWER_LIMIT: Final = 1024
"""Bytes of an answer that are looked at; it has seven."""


class Health:
    """
    What the checks of one endpoint say.

    Attributes:
        spec: As configured.
        healthy: The verdict so far.
    """

    __slots__ = ("_against", "healthy", "spec")

    def __init__(self, spec: HealthCheckSpec, *, healthy: bool = True) -> None:
        self.spec = spec
        self.healthy = healthy
        self._against = 0  # answers in a row that contradict the verdict

    def __repr__(self) -> str:
        return f"<Health {'healthy' if self.healthy else 'unhealthy'}, {self._against} against it>"

    def learn(self, *, good: bool) -> bool:
        """Take note of an answer; return whether it has changed the verdict."""
        if good == self.healthy:
            self._against = 0
            return False
        self._against += 1
        if self._against < (self.spec.unhealthy if self.healthy else self.spec.healthy):
            return False
        self.healthy = good
        self._against = 0
        return True


def interval(spec: HealthCheckSpec, random: float) -> float:
    """Return the seconds until the next check: a tenth more or less, or all proxies ask at once."""
    return spec.interval / 1000 * (0.9 + 0.2 * random)


def is_good(spec: HealthCheckSpec, status: int) -> bool:
    """Say whether an HTTP status is one of a healthy endpoint."""
    return status in spec.statuses if spec.statuses else 200 <= status <= 299


def grpc_question(service: str) -> bytes:
    """Return a HealthCheckRequest in its frame."""
    name = service.encode()
    message = b"" if not name else b"\x0a" + _varint(len(name)) + name
    return b"\0" + len(message).to_bytes(4, "big") + message


def is_serving(answer: bytes) -> bool:
    """Say whether a HealthCheckResponse in its frame says SERVING."""
    return answer[_PREFIX:].startswith(_SERVING)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
