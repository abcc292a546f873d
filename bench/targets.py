"""What meshproxy is to reach, and where it is heading: one table, which the bench judges."""

import ssl
from dataclasses import dataclass
from typing import Final

from .workloads import ENVOY, ENVOY_ARMED, OURS

ANY: Final = "*"
"""Every workload."""


@dataclass(frozen=True)
class Target:
    """
    A limit of the ratio of our figure to that of another peer, in one run.

    Attributes:
        workload: Its name, or `ANY`.
        peer: Whose figure: ours with everything armed, or with nothing.
        base: The other peer; None where the limit is one of our own figure, in the worst round.
        reach: The ratio that must be reached; a greatest one, or with `at_least` a least one.
        heading: Where we are heading.
    """

    workload: str
    metric: str
    reach: float
    heading: float
    peer: str = OURS
    base: str | None = ENVOY
    at_least: bool = False

    def met(self, figure: float) -> bool:
        return figure >= self.reach if self.at_least else figure <= self.reach

    def text(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.reach:g}"


def _twice(
    workload: str, metric: str, reach: float, heading: float, *, at_least: bool = False
) -> tuple[Target, Target]:
    """Ours with everything armed, against Envoy with everything, and against Envoy with less."""
    return (
        Target(workload, metric, reach, heading, OURS, ENVOY_ARMED, at_least),
        Target(workload, metric, reach, heading, OURS, ENVOY, at_least),
    )


# TLS of bulk and handshakes is OpenSSL's work, and 3.0 is slower at it.  The targets of opaque TCP
# are those of 3.5 with either.
_SLOW: Final = ssl.OPENSSL_VERSION_INFO < (3, 2)

TARGETS: Final = (
    *_twice("h1-small", "cpu_us", 0.50, 0.35),
    *_twice("h1-small", "rps", 1.9, 2.5, at_least=True),
    *_twice("h1-1k", "cpu_us", 0.50, 0.35),
    *_twice("h1-1k", "rps", 1.9, 2.5, at_least=True),
    *_twice("grpc", "cpu_us", 0.50, 0.35),
    *_twice("grpc", "rps", 1.9, 2.5, at_least=True),
    *_twice("rate", "vcpu", 0.80, 0.60),
    *_twice("rate", "added_p50_ms", 0.85, 0.6),
    Target("down", "cpu_s_per_gb", 1.15 if _SLOW else 1.0, 0.8),
    Target("up", "cpu_s_per_gb", 1.15 if _SLOW else 1.0, 0.8),
    Target("tcp-up-1", "cpu_s_per_gb", 1.2, 1.0),
    Target("tcp-up-8", "cpu_s_per_gb", 1.2, 1.0),
    Target("tcp-down-1", "cpu_s_per_gb", 1.2, 1.0),
    Target("tcp-down-8", "cpu_s_per_gb", 1.2, 1.0),
    Target("tcp-connect", "cpu_us", 0.3, 0.15),
    Target("tcp-connect", "rate", 3.0, 4.0, at_least=True),
    Target("tcp-ping", "cpu_us", 0.8, 0.5),
    Target("handshake", "cpu_us", 2.8 if _SLOW else 2.2, 1.5),
    Target("memory", "connected_mb", 0.65, 0.5),
    Target("memory", "idle_mb", 0.6, 0.35),
    Target("start", "ms", 2.0, 1.0),
    Target("armed", "cpu_us", 1.15, 1.10, base="ours-bare"),
    Target("single", "cpu_us", 1.6, 1.3, base="nginx"),
    Target("single", "cpu_us", 2.4, 2.0, base="haproxy"),
    Target(ANY, "lag_ms", 50, 20, base=None),
)


def targets(workload: str, metric: str) -> list[Target]:
    return [one for one in TARGETS if one.workload in (workload, ANY) and one.metric == metric]
