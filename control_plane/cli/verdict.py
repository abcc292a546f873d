"""
Was the demo a success?  Said in sentences, each a reason why not.

Two independent witnesses are heard: the load, which counted what came back to it, and the
sidecars, which counted what reached them and who was proved to have sent it.
"""

from collections.abc import Collection, Iterable, Mapping

from control_plane.cli import traffic
from control_plane.resources.model import HTTPRoute

Hop = tuple[str, str]
"""Caller's ``namespace/service-account`` and the ``namespace/workload`` that is called."""

VISITS = ("default/visitors", "default/storefront")
OPINIONS = ("default/storefront", "default/reviews")
SHOP = "default/storefront"
CATALOGS = ("catalog-v1", "catalog-v2")
LIKELY = 0.05
"""A share of the traffic that a run of a few seconds is sure to send at least once."""


def expected_hops(routes: Iterable[HTTPRoute]) -> set[Hop]:
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
    failed = sum(failures.values())
    if failed:
        worst = max(failures, key=lambda what: failures[what])
        found.append(
            f"{failed} of {answered + failed} requests failed, {failures[worst]} of them: {worst}"
        )
    if not answered:
        found.append("no request was answered")
    edges = traffic.edges(counters)
    for edge, flowed in edges.items():
        if edge.source == traffic.PLAINTEXT:
            found.append(f"{flowed.requests:g} requests reached {edge.destination} without mTLS")
        elif not edge.identity:
            found.append(
                f"{flowed.requests:g} requests of {edge.source} never reached {edge.destination}"
            )
        bad = {code: count for code, count in flowed.codes.items() if not code.startswith("2")}
        if bad:
            codes = ", ".join(f"{count:g} with {code}" for code, count in sorted(bad.items()))
            found.append(f"{edge.source} → {edge.destination}: answered {codes}")
    if broken := traffic.count(traffic.HANDSHAKE_FAILURES, counters):
        found.append(f"{broken:g} TLS handshakes failed")
    if refused := traffic.count(traffic.REFUSALS, counters):
        found.append(f"sidecars refused {refused:g} times (mesh_refusals_total says why)")
    travelled = {(edge.source, edge.destination) for edge in edges if edge.identity}
    found.extend(
        f"no request went from {source} to {destination}"
        for source, destination in sorted(set(hops) - travelled)
    )
    return found


def _served(routes: Iterable[HTTPRoute]) -> list[str]:
    for route in routes:
        if route.metadata.name == "catalog":
            backends = [b for rule in route.spec.rules for b in rule.backend_refs]
            total = sum(backend.weight for backend in backends)
            return [b.name for b in backends if total and b.weight / total >= LIKELY]
    return list(CATALOGS)
