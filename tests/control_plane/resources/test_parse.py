import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from control_plane.resources.gateway_api import HTTPRoute
from control_plane.resources.model import Service
from control_plane.resources.parse import parse
from tests.helpers.mesh import messages, route, service, source

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n"


def test_resources_of_several_documents_in_any_order() -> None:
    """Each document is one resource, with its place."""
    sources, findings = parse(
        route("r", "a", "[{}]", namespace="ns") + "---" + service("a"), "f.yaml"
    )
    assert findings == []
    assert [type(found.resource) for found in sources] == [HTTPRoute, Service]
    assert [found.key for found in sources] == ["HTTPRoute/ns/r", "Service/default/a"]
    assert [found.line for found in sources] == [2, 9]


def test_a_finding_carries_file_line_kind_name_and_field() -> None:
    """All a person needs to go there and mend it."""
    text = SERVICE.replace("port: 80", "port: eighty")
    assert messages(text) == [
        (
            'f.yaml:4: Service/default/a: spec.ports[0].port: "eighty" is a string, expected an '
            "integer 1 to 65535"
        ),
    ]


def test_findings_of_all_documents_are_reported() -> None:
    """A broken document does not hide the next."""
    found = messages("kind: Servce\n---\n[]\n---\n" + SERVICE.replace("ports", "prots"))
    assert [line.split(": ", 1)[1] for line in found] == [
        'Servce: kind: "Servce" is not a kind of resource, did you mean "Service"?',
        "the document is a list, expected a resource",
        "Service/default/a: spec.ports: is missing, expected a list",
        'Service/default/a: spec.prots: unknown field, did you mean "ports"?',
    ]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("kind: Foo", 'f.yaml:1: Foo: kind: "Foo" is not a kind of resource, expected one of Auth'),
        (
            "kind: ReferenceGrant",
            "f.yaml:1: ReferenceGrant: kind: ReferenceGrant is not read: routes of a mesh lead to the",
        ),
        ("kind: Gateway", "f.yaml:1: Gateway: kind: Gateway is not supported yet, expected one of"),
        (
            "kind: TCPRoute",
            "f.yaml:1: TCPRoute: apiVersion: is missing, expected gateway.networking.k8s.io/v1",
        ),
        ("kind: GRPCRout", 'f.yaml:1: GRPCRout: kind: "GRPCRout" is not a kind of resource, did'),
        (
            "apiVersion: v1",
            "f.yaml:1: kind: is missing, expected one of AuthorizationPolicy, FaultI",
        ),
        ("kind: Service", "f.yaml:1: Service: apiVersion: is missing, expected v1"),
        (
            "apiVersion: v2\nkind: Service",
            'f.yaml:1: Service: apiVersion: "v2" is not read of a Service, expected v1',
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1alpha1\nkind: TLSRoute",
            (
                'f.yaml:1: TLSRoute: apiVersion: "gateway.networking.k8s.io/v1alpha1" is not read of a '
                "TLSRoute, expected gateway.networking.k8s.io/v1 or gateway.networking.k8s.io/v1alpha2 or"
            ),
        ),
        ("kind: [a]", "f.yaml:1: kind: is missing"),
        ("just text", "f.yaml:1: the document is a string, expected a resource"),
    ],
)
def test_unknown_kinds(head: str, expected: str) -> None:
    """The nearest known kind, or all; and what the Gateway API has but we do not, by name."""
    (only,) = messages(head)
    assert only.startswith(expected)


def test_yaml_that_breaks_off_keeps_the_findings_before_it() -> None:
    """The line of the break, and what was wrong above it."""
    found = messages("kind: Foo\n---\na: [1,\nb: 2\n---\n")
    assert len(found) == 2
    assert "not YAML" in found[1]


def test_a_resource_knows_the_lines_of_its_fields() -> None:
    """Later checks point at fields, not at the resource."""
    found = source(SERVICE).finding(("spec", "ports", 0, "port"), "no", "unresolved")
    assert (found.line, found.severity, found.field) == (4, "unresolved", "spec.ports[0].port")


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(["v1", "Service"])
)
KEYS = st.sampled_from(
    ["apiVersion", "kind", "metadata", "spec", "name", "ports", "rules", "matches", "x"]
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)
HEADS = st.sampled_from(
    [
        ("v1", "Service"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("gateway.networking.k8s.io/v1", "GRPCRoute"),
        ("gateway.networking.k8s.io/v1", "TLSRoute"),
        ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"),
        ("meshproxy.io/v1alpha1", "Workload"),
        ("meshproxy.io/v1alpha1", "MeshConfig"),
        ("v1", "Pod"),
    ]
)


@given(HEADS, TREES, TREES)
def test_any_tree_is_resources_or_findings(
    head: tuple[str, str], metadata: object, spec: object
) -> None:
    """Whatever is written under a known kind, nothing but findings comes of it."""
    document = {"apiVersion": head[0], "kind": head[1], "metadata": metadata, "spec": spec}
    messages(yaml.safe_dump(document))


@given(st.text())
def test_any_text_is_resources_or_findings(text: str) -> None:
    """Whatever is written, nothing but findings comes of it."""
    messages(text)


def test_what_is_wrong_a_thousand_times_is_looked_for_a_hundred_times() -> None:
    """In one resource and in many; the file has been refused by then."""
    for text in (
        "---\nkind: Foo\n" * 1000,
        SERVICE + "".join(f"f{n}: 1\n" for n in range(1000)),
    ):
        _, findings = parse(text, "f.yaml")
        assert len(findings) == 101
        assert "was not looked for" in findings[-1].message


def test_names_as_long_as_a_file_are_not_repeated() -> None:
    """Neither those of resources nor those of kinds, versions and fields."""
    long = "x" * 100_000
    for text in (
        f"apiVersion: v1\nkind: {long}\n",
        f"apiVersion: {long}\nkind: Service\n",
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {long}}}\nspec: 1\n{long}: 1\n",
    ):
        _, findings = parse(text, "f.yaml")
        assert findings
        assert all(len(str(finding)) < 2000 for finding in findings)
