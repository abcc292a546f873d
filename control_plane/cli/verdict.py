"""
Was the demo a success?  Said in sentences, each a reason why not.

Two independent witnesses are heard: the load, which counted what came back to it, and the
sidecars, which counted what reached them and who was proved to have sent it.  Whether requests
succeeded is for the load alone to say: sidecars also count those of others, such as a curl of
whoever watches.  Where requests of the load failed, what the sidecars refused tells why.
"""

from collections.abc import Collection, Iterable, Mapping

from control_plane.cli import traffic
from control_plane.cli.output import printable
from control_plane.resources.gateway_api import HTTPRoute, Route

Hop = tuple[str, str]
"""Caller's ``namespace/service-account`` and the ``namespace/workload`` that is called."""

VISITS = ("default/visitors", "default/storefront")
OPINIONS = ("default/storefront", "default/reviews")
SHOP = "default/storefront"
CATALOGS = ("catalog-v1", "catalog-v2")
LIKELY = 0.05
"""A share of the traffic that is sure to be sent at least once, when `ENOUGH` is sent."""
ENOUGH = 200
"""Answers; a run that was interrupted before has not failed for what it had no time to do."""


def expected_hops(routes: Iterable[Route]) -> set[Hop]:
    """Return the hops that the demo's traffic takes, as its route stands."""
    return {VISITS, OPINIONS, *((SHOP, f"default/{name}") for name in _served(routes))}


def problems(
    answered: int, failures: Mapping[str, int], counters: traffic.Counters, hops: Collection[Hop]
) -> list[str]:
    """
    Return every reason why the demo failed; none means success.

    Args:
        answered: Requests of the load that were answered rightly.
        failures: Those that were not, by what happened.
        counters: What all sidecars counted in the same time.
        hops: What must have been travelled.
    """
    found: list[str] = []
    edges = traffic.edges(counters)
    failed = sum(failures.values())
    if failed:
        worst = max(failures, key=lambda what: failures[what])
        found.append(
            f"{failed} of {answered + failed} requests failed, {failures[worst]} of them: "
            f"{printable(worst)}"
        )
        found.extend(_reasons(edges))
        if broken := traffic.count(traffic.HANDSHAKE_FAILURES, counters):
            found.append(f"{broken:.0f} TLS handshakes failed")
    if not answered:
        found.append("no request was answered")
    for edge, flowed in edges.items():
        served = flowed.requests - sum(flowed.refusals.values())
        if edge.source == traffic.PLAINTEXT and served:
            found.append(f"{served:.0f} requests reached {edge.destination} without mTLS")
    if answered >= ENOUGH:
        travelled = {(edge.source, edge.destination) for edge in edges if edge.identity}
        found.extend(
            f"no request went from {source} to {destination}"
            for source, destination in sorted(set(hops) - travelled)
        )
    return found


def proved(edges: Mapping[traffic.Edge, traffic.Traffic]) -> tuple[float, float]:
    """Return how many requests between sidecars arrived with a proved identity, and how many at all."""
    arrived = {
        edge: flowed.requests
        for edge, flowed in edges.items()
        if edge.arrived and (edge.identity or flowed.requests > sum(flowed.refusals.values()))
    }
    return sum(n for edge, n in arrived.items() if edge.identity), sum(arrived.values())


def refused(edges: Mapping[traffic.Edge, traffic.Traffic]) -> list[str]:
    """Return what sidecars answered themselves: how often, with which code, to whom, for which service."""
    return [
        f"{count:.0f} × {code} for {edge.destination or 'an unknown service'}, "  # noqa: RUF001
        f"called by {edge.source}"
        for edge, flowed in edges.items()
        for code, count in sorted(flowed.refusals.items())
    ]


def _reasons(edges: Mapping[traffic.Edge, traffic.Traffic]) -> list[str]:
    found = refused(edges)
    for edge, flowed in edges.items():
        bad = {code: n for code, n in flowed.codes.items() if code.startswith("5")}
        if bad and not flowed.refusals:
            codes = ", ".join(f"{count:.0f} with {code}" for code, count in sorted(bad.items()))
            found.append(f"{edge.source} → {edge.destination}: answered {codes}")
    return found


def _served(routes: Iterable[Route]) -> list[str]:
    for route in routes:
        if isinstance(route, HTTPRoute) and route.metadata.name == "catalog":
            backends = [b for rule in route.spec.rules for b in rule.backend_refs]
            total = sum(backend.weight for backend in backends)
            return [b.name for b in backends if total and b.weight / total >= LIKELY]
    return list(CATALOGS)
