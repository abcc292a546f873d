"""The control plane's figures, in a registry of their own: `/metrics` shows these and no others."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from .key_sets import Figure


class Metrics:
    """Counters that the conversations count with; labels have few values, all of our own making."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.updates = Counter(
            "mesh_discovery_updates", "Updates sent to proxies.", registry=self.registry
        )
        self.answers = Counter(
            "mesh_discovery_answers",
            "Answers of proxies to updates.",
            ["answer"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "mesh_discovery_refusals",
            "Streams refused by the control plane.",
            ["reason"],
            registry=self.registry,
        )
        self.signings = Counter(
            "mesh_signings",
            "Certificates asked for, by what came of it.",
            ["result"],
            registry=self.registry,
        )
        self._api_refusals = Counter(
            "mesh_api_refusals",
            "Requests to the API that were refused before they were looked at, by why.",
            ["reason"],
            registry=self.registry,
        )
        self.convergence = Histogram(
            "mesh_convergence_seconds",
            "From a change in the store to its acknowledgement by one proxy.",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30),
            registry=self.registry,
        )

    def api_refused(self, reason: str) -> None:
        """Count a request that the gate of the API has refused."""
        self._api_refusals.labels(reason).inc()

    def watch_authority(self, figures: Callable[[], Mapping[str, float]]) -> None:
        """Show the state of the authority, asked for when asked."""
        self.registry.register(_Authority(figures))

    def watch_key_sets(self, figures: Callable[[], Iterable[Figure]]) -> None:
        """Show how old the keys of token issuers are, asked for when asked."""
        self.registry.register(_KeySets(figures))

    def watch_proxies(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Show how many proxies are in each state, counted when asked."""
        self.registry.register(_Proxies(count))


class _Proxies(Collector):
    def __init__(self, count: Callable[[], Mapping[str, int]]) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("mesh_proxies", "Proxies by state.", labels=["state"])
        for state, number in self._count().items():
            family.add_metric([state], number)
        yield family


class _KeySets(Collector):
    def __init__(self, figures: Callable[[], Iterable[Figure]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        age = GaugeMetricFamily(
            "mesh_key_set_age_seconds",
            "Since when the keys of a token issuer have not been found good again.",
            labels=["issuer"],
        )
        failures = CounterMetricFamily(
            "mesh_key_set_failures",
            "Times that the keys of a token issuer could not be had.",
            labels=["issuer"],
        )
        for figure in self._figures():
            if figure.age is not None:
                age.add_metric([figure.issuer], figure.age)
            failures.add_metric([figure.issuer], figure.failures)
        yield age
        yield failures


class _Authority(Collector):
    _FIGURES = (
        ("mesh_authority_root_expiry_timestamp_seconds", "When the root that signs ends."),
        ("mesh_authority_issuer_expiry_timestamp_seconds", "When the issuing certificate ends."),
        ("mesh_authority_rotation_age_seconds", "Since when a rotation is under way; 0 for none."),
        ("mesh_authority_rotation_lagging", "Proxies that the rotation under way waits for."),
        ("mesh_authority_revoked_identities", "Identities that are denied."),
    )

    def __init__(self, figures: Callable[[], Mapping[str, float]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        figures = self._figures()
        for name, text in self._FIGURES:
            yield GaugeMetricFamily(name, text, value=figures[name])
