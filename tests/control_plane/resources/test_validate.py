import pytest

from tests.helpers.mesh import messages

SERVICE = """apiVersion: v1
kind: Service
metadata: {name: NAME}
spec:
  ports: PORTS
"""
WORKLOAD = """apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: a}
spec: SPEC
"""
MESH = """apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {name: a}
spec: SPEC
"""


def service(name: str = "a", ports: str = "[{port: 80}]") -> str:
    return SERVICE.replace("NAME", name).replace("PORTS", ports)


@pytest.mark.parametrize(
    "text",
    [
        service(),
        service(
            ports="[{port: 80, name: a, targetPort: http}, {port: 81, name: b, targetPort: 8}]"
        ),
        WORKLOAD.replace("SPEC", "{}"),
        WORKLOAD.replace("SPEC", "{run: {command: [a, ''], env: {A: b}}, ports: [{port: 1}]}"),
        MESH.replace("SPEC", "{certificates: {lifetime: 60s}, mtls: PERMISSIVE}"),
    ],
)
def test_accepted(text: str) -> None:
    """Nothing is wrong with these."""
    assert messages(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (service("A"), 'f.yaml:3: Service/default/A: metadata.name: "A" is not a DNS label'),
        (service("a, namespace: b.c"), 'f.yaml:3: Service/b.c/a: metadata.namespace: "b.c" is not'),
        (
            service("a, labels: {x: a b}"),
            'f.yaml:3: Service/default/a: metadata.labels.x: "a b" is not a label value',
        ),
        (
            service("a, labels: {x y: a}"),
            'f.yaml:3: Service/default/a: metadata.labels.x y: "x y" is not a label key',
        ),
        (service(ports="[]"), "f.yaml:5: Service/default/a: spec.ports: is empty, expected at"),
        (
            service(ports="[{port: 80, name: a}, {port: 80, name: b}]"),
            "f.yaml:5: Service/default/a: spec.ports[1].port: 80 is also the port of ports[0]",
        ),
        (
            service(ports="[{port: 80, name: a}, {port: 81, name: a}]"),
            'f.yaml:5: Service/default/a: spec.ports[1].name: "a" is also the name of ports[0]',
        ),
        (
            service(ports="[{port: 80, name: a}, {port: 81}]"),
            "f.yaml:5: Service/default/a: spec.ports[1]: has no name, expected one where",
        ),
        (
            service(ports="[{port: 80, targetPort: 0}]"),
            "f.yaml:5: Service/default/a: spec.ports[0].targetPort: 0 is no port",
        ),
        (
            service(ports="[{port: 80, targetPort: HTTP}]"),
            'f.yaml:5: Service/default/a: spec.ports[0].targetPort: "HTTP" is not a port name',
        ),
        (
            WORKLOAD.replace("SPEC", "{serviceAccount: A}"),
            'f.yaml:4: Workload/default/a: spec.serviceAccount: "A" is not a DNS name',
        ),
        (
            WORKLOAD.replace("SPEC", "{run: {command: []}}"),
            "f.yaml:4: Workload/default/a: spec.run.command: is empty, expected a program",
        ),
        (
            WORKLOAD.replace("SPEC", '{run: {command: ["a\\0"]}}'),
            "f.yaml:4: Workload/default/a: spec.run.command[0]: contains NUL",
        ),
        (
            WORKLOAD.replace("SPEC", "{run: {command: [a], env: {'A=B': c}}}"),
            'f.yaml:4: Workload/default/a: spec.run.env.A=B: "A=B" is not a name for a variable',
        ),
        (
            WORKLOAD.replace("SPEC", "{ports: [{port: 1}, {port: 1}]}"),
            "f.yaml:4: Workload/default/a: spec.ports[1].port: 1 is also the port of ports[0]",
        ),
        (
            MESH.replace("SPEC", "{jwks: {refresh: 999ms}}"),
            'f.yaml:4: MeshConfig/default/a: spec.jwks.refresh: "999ms" is too short, expected at',
        ),
        (
            MESH.replace("SPEC", "{jwks: {allowedFolders: [/a, b]}}"),
            'f.yaml:4: MeshConfig/default/a: spec.jwks.allowedFolders[1]: "b" is no absolute path',
        ),
        (
            MESH.replace("SPEC", "{certificates: {lifetime: 59s}}"),
            'f.yaml:4: MeshConfig/default/a: spec.certificates.lifetime: "59s" is too short',
        ),
        (
            MESH.replace("SPEC", "{certificates: {lifetime: 1 day}}"),
            'f.yaml:4: MeshConfig/default/a: spec.certificates.lifetime: "1 day" is not a duration',
        ),
        (
            MESH.replace("SPEC", "{outboundTrafficPolicy: {mode: REGISTRY}}"),
            (
                'f.yaml:4: MeshConfig/default/a: spec.outboundTrafficPolicy.mode: "REGISTRY" is '
                "not known, expected one of ALLOW_ANY, REGISTRY_ONLY"
            ),
        ),
        (
            service(ports="[{port: 80, appProtocol: 'a b'}]"),
            'f.yaml:5: Service/default/a: spec.ports[0].appProtocol: "a b" is not a protocol',
        ),
        (
            MESH.replace("SPEC", "{trustDomain: A}"),
            'f.yaml:4: MeshConfig/default/a: spec.trustDomain: "A" is not a DNS name',
        ),
    ],
)
def test_refused(text: str, expected: str) -> None:
    """Each is one finding, with line and field."""
    (only,) = messages(text)
    assert only.startswith(expected)
