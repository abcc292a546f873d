"""How things stand, as told and as added up."""

from meshproxy.telemetry.gauges import Gauges

STATES = ("closed", "open", "half-open")


def read(state: str = "open") -> Gauges:
    gauges = Gauges()
    gauges.breaker("catalog", state, STATES)
    gauges.remaining("catalog", "requests", 1000)
    gauges.concurrency("catalog", 20, 7)
    gauges.endpoints("catalog", {"in-service": 2, "ejected": 1}, panicking=False)
    gauges.replay(4096)
    return gauges


def samples(gauges: Gauges) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in gauges.collect()
        for sample in family.samples
    }


def test_what_is_noted_is_told() -> None:
    """One figure for each state, so that a state that is left becomes 0 and does not vanish."""
    assert samples(read()) == {
        ("mesh_circuit_breaker_state", "catalog", "closed"): 0,
        ("mesh_circuit_breaker_state", "catalog", "open"): 1,
        ("mesh_circuit_breaker_state", "catalog", "half-open"): 0,
        ("mesh_limit_remaining", "catalog", "requests"): 1000,
        ("mesh_concurrency_limit", "catalog"): 20,
        ("mesh_concurrency_active", "catalog"): 7,
        ("mesh_endpoints", "catalog", "in-service"): 2,
        ("mesh_endpoints", "catalog", "ejected"): 1,
        ("mesh_cluster_panic", "catalog"): 0,
        ("mesh_replay_bytes",): 4096,
    }


def test_workers_are_added_up() -> None:
    """Of two, one breaker is open."""
    total = Gauges()
    for state in ("open", "closed"):
        total.add(read(state).readings())
    told = samples(total)
    assert told["mesh_circuit_breaker_state", "catalog", "open"] == 1
    assert told["mesh_circuit_breaker_state", "catalog", "closed"] == 1
    assert told["mesh_limit_remaining", "catalog", "requests"] == 2000
