"""
How things stand: figures that go up and down, asked for when somebody looks.

A counter is counted where something happens.  What is here is kept nowhere: who knows it is asked
(`Cluster.gauge`) each time that `/metrics` is read.  Every figure is one that makes sense as a sum,
for a proxy of several workers tells the sum of theirs: not "the breaker is open" but "so many of its
breakers are", which for one process is 0 or 1.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_FAMILIES: Final = {
    "mesh_circuit_breaker_state": (
        "1 for the state that the circuit breaker of a cluster is in (of workers, how many are).",
        ("cluster", "state"),
    ),
    "mesh_limit_remaining": (
        "How much more may go on at once with a cluster before it overflows.",
        ("cluster", "limit"),
    ),
    "mesh_retry_budget_left": (
        "Retries that the budget of a cluster has room for now.",
        ("cluster",),
    ),
    "mesh_replay_bytes": ("Bytes of request bodies that are kept for another attempt.", ()),
    "mesh_endpoints": (
        "Endpoints of a cluster by what is known about them (added up over workers).",
        ("cluster", "state"),
    ),
    "mesh_concurrency_limit": (
        "Requests that an app is given at once, as load shedding has it.",
        ("cluster",),
    ),
    "mesh_concurrency_active": ("Requests that such an app has now.", ("cluster",)),
    "mesh_memory_resident_bytes": ("Memory that is in use.", ()),
    "mesh_memory_limit_bytes": (
        "That above which new connections are refused; 0 for any number.",
        (),
    ),
    "mesh_cluster_panic": (
        "1 while all endpoints of a cluster are used because too few are in service.",
        ("cluster",),
    ),
}

Reading = tuple[str, tuple[str, ...], int]
"""Name, labels, value."""


class Gauges:
    """One reading of them all."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[tuple[str, tuple[str, ...]], int] = {}

    def breaker(self, cluster: str, state: str, among: tuple[str, ...]) -> None:
        """Note in which of the states a breaker is."""
        for one in among:
            self._add("mesh_circuit_breaker_state", (cluster, one), int(one == state))

    def remaining(self, cluster: str, limit: str, room: int) -> None:
        """Note how far away a limit is."""
        self._add("mesh_limit_remaining", (cluster, limit), room)

    def retries(self, cluster: str, left: int) -> None:
        """Note how many retries may be made."""
        self._add("mesh_retry_budget_left", (cluster,), left)

    def replay(self, held: int) -> None:
        """Note how many bytes are kept for another attempt."""
        self._add("mesh_replay_bytes", (), held)

    def endpoints(self, cluster: str, states: dict[str, int], *, panicking: bool) -> None:
        """Note how many endpoints are in which state."""
        for state, count in states.items():
            self._add("mesh_endpoints", (cluster, state), count)
        self._add("mesh_cluster_panic", (cluster,), int(panicking))

    def concurrency(self, cluster: str, limit: int, active: int) -> None:
        """Note how many requests an app is given at once, and how many it has."""
        self._add("mesh_concurrency_limit", (cluster,), limit)
        self._add("mesh_concurrency_active", (cluster,), active)

    def memory(self, resident: int, limit: int) -> None:
        """Note how much of its memory the process uses."""
        self._add("mesh_memory_resident_bytes", (), resident)
        self._add("mesh_memory_limit_bytes", (), limit)

    def _add(self, name: str, labels: tuple[str, ...], value: int) -> None:
        key = (name, labels)
        self._values[key] = self._values.get(key, 0) + value

    # One proxy of several processes ---------------------------------------------------------------

    def readings(self) -> list[Reading]:
        return [(name, labels, value) for (name, labels), value in self._values.items()]

    def add(self, readings: list[Reading]) -> None:
        """Add what another process has read."""
        for name, labels, value in readings:
            self._add(name, labels, value)

    # Telling --------------------------------------------------------------------------------------

    def collect(self) -> Iterator["Metric"]:
        from prometheus_client.core import GaugeMetricFamily

        families = {
            name: GaugeMetricFamily(name, text, labels=labels)
            for name, (text, labels) in _FAMILIES.items()
        }
        for (name, labels), value in self._values.items():
            families[name].add_metric(labels, value)
        yield from families.values()
