import pytest

from tests.helpers.mesh import messages

POLICY = """apiVersion: meshproxy.io/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec: {targetRefs: REFS}
"""


@pytest.mark.parametrize(
    "refs", ["[{name: a}]", "[{name: a, sectionName: http}, {group: '', kind: Service, name: b}]"]
)
def test_accepted(refs: str) -> None:
    """A Service, or one of its ports by name."""
    assert messages(POLICY.replace("REFS", refs)) == []


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        ("[]", "targetRefs: is empty, expected at least one Service"),
        ("[{name: A}]", 'targetRefs[0].name: "A" is not a DNS label'),
        ("[{name: a}, {name: a}]", "targetRefs[1]: is the same as targetRefs[0]"),
        ("[{name: a, sectionName: A}]", 'targetRefs[0].sectionName: "A" is not a DNS label'),
        ("[{name: a, namespace: b}]", "targetRefs[0].namespace: unknown field, did you mean"),
        (
            "[{name: a, kind: Gateway}]",
            'targetRefs[0].kind: "Gateway" is not known, expected Service',
        ),
        ("[{name: a, group: apps}]", 'targetRefs[0].group: "apps" is not known, expected ""'),
        (
            f"[{', '.join(f'{{name: a{n}}}' for n in range(17))}]",
            "targetRefs: has 17 items, expected",
        ),
    ],
)
def test_refused(refs: str, expected: str) -> None:
    """Each is one finding, with its field."""
    (only,) = messages(POLICY.replace("REFS", refs))
    assert only.startswith(f"f.yaml:4: TrafficPolicy/default/p: spec.{expected}")


def test_a_traffic_policy_needs_targets() -> None:
    """Nothing else could refer to it."""
    (only,) = messages(POLICY.replace("targetRefs: REFS", ""))
    assert "spec.targetRefs: is missing, expected a list" in only
