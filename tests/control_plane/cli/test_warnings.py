"""What is allowed, and yet surely not meant."""

from pathlib import Path

import pytest

from control_plane.cli.warnings import warnings
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from tests.helpers.mesh import policy, route, service, state, workload

MESH = """
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: files, labels: {app: files}}
spec: {ports: [{port: 8080, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: files}
spec: {SPEC}
"""


def told(spec: str) -> list[str]:
    text = MESH.replace("SPEC", spec)
    made = state_of(choose({Path("m.yaml"): examine(text, Path("m.yaml"))}, {}), Placements())
    assert made.findings == ()
    return warnings(made)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("selector: {app: files}, ports: [{port: 80, targetPort: http}]", None),
        ("selector: {app: files}, ports: [{port: 8080}]", None),
        (
            "selector: {app: flies}, ports: [{port: 80}]",
            "spec.selector: no workload of this namespace has the labels app: flies",
        ),
        ("ports: [{port: 80}]", "spec.selector: is missing, no workload answers for this service"),
        (
            "selector: {app: files}, ports: [{port: 80}]",
            "spec.ports[0].port: no selected workload has the port 80",
        ),
        (
            "selector: {app: files}, ports: [{port: 80, targetPort: web}]",
            "spec.ports[0].targetPort: no selected workload has the port web",
        ),
        (
            "selector: {app: files}, ports: [{port: 8080, appProtocol: htttp2}]",
            'spec.ports[0].appProtocol: "htttp2" says nothing to the mesh, did you mean "http2"?',
        ),
        ("selector: {app: files}, ports: [{port: 8080, appProtocol: acme.io/their-own}]", None),
        ("selector: {app: files}, ports: [{port: 8080, appProtocol: grpc}]", None),
    ],
)
def test_a_service_that_nobody_answers_for_is_told(spec: str, expected: str | None) -> None:
    """With its place and its field, as a finding would be."""
    assert told(spec) == ([f"m.yaml:7: Service/default/files: {expected}"] if expected else [])


@pytest.mark.parametrize("name", ["limits", "other"])
def test_a_policy_that_nothing_leads_to(name: str) -> None:
    """It targets no Service, and no route has it for a filter."""
    limits = policy("limits", "rules: [{requests: 1}]", kind="RateLimitPolicy")
    start, end = limits.index("targetRefs"), limits.index("rules")
    ref = f"{{group: meshproxy.io, kind: RateLimitPolicy, name: {name}}}"
    filters = f"[{{filters: [{{type: ExtensionRef, extensionRef: {ref}}}]}}]"
    mesh = state(
        service("a"), workload("a"), limits[:start] + limits[end:], route("r", "a", filters)
    )
    expected = (
        "RateLimitPolicy/default/limits: spec.targetRefs: is missing, and no route refers to it"
    )
    assert warnings(mesh) == ([] if name == "limits" else [f"2.yaml:2: {expected}"])
