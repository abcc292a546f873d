import pytest

from control_plane.resources.model import DEFAULT_MESH
from control_plane.resources.security import AuthorizationPolicy, AuthorizationRule, Operation
from control_plane.resources.security import RuleTo as To
from control_plane.resources.selection import (
    everywhere,
    in_front,
    includes,
    means,
    mtls,
    selected,
    selects,
    target,
)
from control_plane.store import State
from tests.helpers.mesh import mesh_config, security, service, state, workload

MESH = state(service("a"), service("b"), service("a", namespace="other"), workload("a"))
OWN = MESH.workloads["default/a"]


def test_a_selector_chooses_within_its_namespace() -> None:
    """All of its labels are there; a Service without a selector chooses nobody."""
    assert selects(MESH.services["default/a"], OWN)
    assert not selects(MESH.services["default/b"], OWN)
    assert not selects(MESH.services["other/a"], OWN)
    bare = state(service("a").replace("{app: a}", "{}"))
    assert not selects(bare.services["default/a"], OWN)


def test_a_target_port_is_a_number_or_a_name() -> None:
    """The service's own number when left out; None where the workload does not have it."""
    for text, expected in (
        ("port: 80, targetPort: http", 8080),
        ("port: 80, targetPort: 8080", 8080),
        ("port: 8080", 8080),
        ("port: 80", None),
    ):
        found = state(service("a").replace("port: 80, targetPort: http", text)).services
        assert target(found["default/a"].spec.ports[0], OWN) == expected


def test_what_stands_in_front_of_a_port() -> None:
    """Every service port that leads there, and no other."""
    assert [(name, port.port) for name, port in in_front(8080, OWN, MESH.services)] == [
        ("default/a", 80)
    ]
    assert in_front(9090, OWN, MESH.services) == []


# By a security policy -----------------------------------------------------------------------

SELECTED = "selector: {matchLabels: {app: a}}"
OTHERS = "selector: {matchLabels: {app: b}}"
OLD = ", creationTimestamp: '2020-01-01T00:00:00Z'"
YOUNG = ", creationTimestamp: '2024-01-01T00:00:00Z'"


def names(mesh: State, of: str = "default/a") -> list[str]:
    """Return the AuthorizationPolicies that are about a workload."""
    policies = mesh.security.values()
    config = mesh.mesh_config or DEFAULT_MESH
    found = selected(AuthorizationPolicy, mesh.workloads[of], policies, config)
    return [one.metadata.name for one in found]


@pytest.mark.parametrize(
    ("spec", "namespace", "about"),
    [
        ("", "default", True),
        (SELECTED, "default", True),
        ("selector: {matchLabels: {app: a, version: v1}}", "default", True),
        ("selector: {matchLabels: {app: a, version: v2}}", "default", False),
        (OTHERS, "default", False),
        ("", "other", False),
        (SELECTED, "other", False),
        ("scope: Mesh", "other", False),
    ],
)
def test_whom_a_policy_is_about(spec: str, namespace: str, about: bool) -> None:
    """All labels are there, in the policy's own namespace; scope Mesh is not for everybody."""
    text = security("AuthorizationPolicy", spec, namespace=namespace)
    assert names(state(workload("a"), text)) == (["p"] if about else [])


def test_scope_mesh() -> None:
    """Beside the MeshConfig it reaches every namespace, by labels too; elsewhere it says nothing."""
    mesh = state(
        mesh_config("", "mesh-system"),
        workload("a"),
        workload("b"),
        security("AuthorizationPolicy", "scope: Mesh", "all", "mesh-system"),
        security("AuthorizationPolicy", f"scope: Mesh, {SELECTED}", "labelled", "mesh-system"),
        security("AuthorizationPolicy", "", "system", "mesh-system"),
        security("AuthorizationPolicy", "scope: Mesh", "elsewhere", "other"),
    )
    assert names(mesh) == ["all", "labelled"]
    assert names(mesh, "default/b") == ["all"]
    config = mesh.mesh_config
    assert config is not None
    wide = {one.metadata.name for one in mesh.security.values() if everywhere(one, config)}
    assert wide == {"all", "labelled"}


def test_without_a_mesh_config_the_default_namespace_is_the_meshs() -> None:
    """There the defaults are."""
    mesh = state(
        workload("a", "other"),
        security("AuthorizationPolicy", "scope: Mesh", "all"),
        security("PeerAuthentication", "mtls: {mode: PERMISSIVE}", "peers"),
    )
    assert names(mesh, "other/a") == ["all"]
    assert accepts(mesh, None, "other/a") == "STRICT"


def test_the_oldest_first() -> None:
    """By time, then by name, so that every control plane says the same."""
    mesh = state(
        workload("a"),
        security("AuthorizationPolicy", "", "c", metadata=YOUNG),
        security("AuthorizationPolicy", "", "b", metadata=OLD),
        security("AuthorizationPolicy", "", "a", metadata=OLD),
        security("PeerAuthentication", "mtls: {mode: STRICT}", "d", metadata=OLD),
    )
    assert names(mesh) == ["a", "b", "c"]


# What a port accepts ------------------------------------------------------------------------


def peers(spec: str, name: str = "p", namespace: str = "default", metadata: str = "") -> str:
    return security("PeerAuthentication", spec, name, namespace, metadata)


def accepts(mesh: State, port: int | None, of: str = "default/a") -> str:
    config = mesh.mesh_config or DEFAULT_MESH
    return mtls(mesh.workloads[of], port, mesh.security.values(), config)


STRICT = "mtls: {mode: STRICT}"
PERMISSIVE = "mtls: {mode: PERMISSIVE}"


@pytest.mark.parametrize(
    ("mesh", "policies", "of_8080", "of_9090"),
    [
        ("", [], "STRICT", "STRICT"),
        ("mtls: PERMISSIVE", [], "PERMISSIVE", "PERMISSIVE"),
        # Namespace before mesh …
        ("", [peers(PERMISSIVE)], "PERMISSIVE", "PERMISSIVE"),
        ("mtls: PERMISSIVE", [peers(STRICT)], "STRICT", "STRICT"),
        ("", [peers(PERMISSIVE, namespace="other")], "STRICT", "STRICT"),
        # … selector before namespace, whichever is older …
        (
            "",
            [peers(PERMISSIVE, metadata=OLD), peers(f"{SELECTED}, {STRICT}", "q", metadata=YOUNG)],
            "STRICT",
            "STRICT",
        ),
        (
            "",
            [peers(PERMISSIVE, metadata=YOUNG), peers(f"{SELECTED}, {STRICT}", "q", metadata=OLD)],
            "STRICT",
            "STRICT",
        ),
        ("", [peers(f"{OTHERS}, {PERMISSIVE}")], "STRICT", "STRICT"),
        # … port before all …
        (
            "",
            [peers(f"{SELECTED}, {STRICT}, portLevelMtls: {{8080: {{mode: PERMISSIVE}}}}")],
            "PERMISSIVE",
            "STRICT",
        ),
        (
            "",
            [
                peers(f"{SELECTED}, {STRICT}", metadata=OLD),
                peers(
                    f"{SELECTED}, portLevelMtls: {{8080: {{mode: PERMISSIVE}}}}",
                    "q",
                    metadata=YOUNG,
                ),
            ],
            "PERMISSIVE",
            "STRICT",
        ),
        # … a policy about ports alone leaves the others to those behind it …
        (
            "",
            [
                peers(PERMISSIVE),
                peers(f"{SELECTED}, portLevelMtls: {{8080: {{mode: STRICT}}}}", "q"),
            ],
            "STRICT",
            "PERMISSIVE",
        ),
        # … and of two alike, the older.
        (
            "",
            [peers(PERMISSIVE, metadata=YOUNG), peers(STRICT, "q", metadata=OLD)],
            "STRICT",
            "STRICT",
        ),
        (
            "",
            [
                peers(f"{SELECTED}, portLevelMtls: {{8080: {{mode: {mode}}}}}", name, metadata=age)
                for mode, name, age in (("STRICT", "p", YOUNG), ("PERMISSIVE", "q", OLD))
            ],
            "PERMISSIVE",
            "STRICT",
        ),
        # Without certificates there is nothing to demand.
        ("mtls: DISABLED", [peers(f"{SELECTED}, {STRICT}")], "DISABLED", "DISABLED"),
    ],
)
def test_the_most_specific_decides(
    mesh: str, policies: list[str], of_8080: str, of_9090: str
) -> None:
    """Port, then selector, then namespace, then mesh; of two alike, the older."""
    made = state(mesh_config(mesh), workload("a"), *policies)
    assert (accepts(made, 8080), accepts(made, 9090)) == (of_8080, of_9090)
    assert (
        accepts(made, None) == of_9090
    )  # a port that nobody has declared has no policy of its own


# Of a workload, a port ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "not_ports", "expected"),
    [
        ((), (), True),
        ((80,), (), True),
        ((81, 80), (), True),
        ((81,), (), False),
        ((), (80,), False),
        ((), (81,), True),
        ((80,), (80,), False),
    ],
)
def test_whether_an_operation_is_one_of_a_port(
    ports: tuple[int, ...], not_ports: tuple[int, ...], expected: bool
) -> None:
    """`ports` and `notPorts`, both of which must agree."""
    operation = Operation(ports=ports, not_ports=not_ports)
    assert includes(operation, 80) == expected
    assert means(AuthorizationRule(to=(To(operation=operation),)), 80) == expected


def test_whether_a_rule_is_about_a_port() -> None:
    """One without operations is about all; of several, one is enough."""
    elsewhere, here = (To(operation=Operation(ports=(port,))) for port in (81, 80))
    assert means(AuthorizationRule(), 80)
    assert means(AuthorizationRule(to=(elsewhere, here)), 80)
    assert not means(AuthorizationRule(to=(elsewhere,)), 80)
