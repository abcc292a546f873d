from tests.helpers.mesh import policy, service, state

OLD = ", creationTimestamp: '2020-01-01T00:00:00Z'"
PORTS = service("a").replace("{port: 80,", "{port: 80, name: web,")


def found(*texts: str) -> list[str]:
    mesh = state(*texts)
    assert all(finding.severity == "unresolved" for finding in mesh.findings)
    return [str(finding) for finding in mesh.findings]


def test_what_resolves_is_silent() -> None:
    """One policy for a Service, one for a port of it."""
    assert found(PORTS, policy("p", "", section="web")) == []


def test_a_service_that_does_not_exist() -> None:
    """No error: the policy holds as soon as there is one; until then it says so."""
    assert found(policy("p", "", target="aa"), service("a")) == [
        (
            "0.yaml:5: TrafficPolicy/default/p: spec.targetRefs[0]: Accepted=False (TargetNotFound): "
            'Service default/aa does not exist, did you mean "default/a"?'
        )
    ]


def test_a_port_that_does_not_exist() -> None:
    """By name, so the names are told."""
    (only,) = found(PORTS, policy("p", "", section="wep"))
    assert only.endswith(
        '(TargetNotFound): Service default/a has no port of the name "wep", expected one of web'
    )
    (only,) = found(service("a"), policy("p", "", section="web"))
    assert only.endswith('has no port of the name "web", its port has no name')


def test_two_for_one_service() -> None:
    """The younger is told which one goes before."""
    assert found(service("a"), policy("p", "", metadata=OLD), policy("q", "")) == [
        (
            "2.yaml:5: TrafficPolicy/default/q: spec.targetRefs[0]: Accepted=False (Conflicted): "
            "port 80 of Service default/a follows TrafficPolicy default/p alone: it is the older one"
        )
    ]


def test_one_for_all_ports_of_which_each_has_its_own() -> None:
    """Nothing is left for it; but as long as there is a port, that is no conflict."""
    (only,) = found(PORTS, policy("p", "", metadata=OLD), policy("q", "", section="web"))
    assert only.endswith(
        "Accepted=False (Overridden): each port of Service default/a has a TrafficPolicy that names it"
    )
    two = PORTS.replace("{port: 80,", "{port: 81, name: other}, {port: 80,")
    assert found(two, policy("p", "", metadata=OLD), policy("q", "", section="web")) == []


def test_other_kinds_never_conflict() -> None:
    """They add up."""
    limit = "rules: [{requests: 1}]"
    kind = "RateLimitPolicy"
    assert found(service("a"), policy("p", limit, kind=kind), policy("q", limit, kind=kind)) == []
