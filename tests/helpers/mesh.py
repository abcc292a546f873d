"""Meshes out of YAML, as tests write them."""

from pathlib import Path
from textwrap import dedent

from control_plane.placement import Placement, Placements
from control_plane.resources.collection import choose, examine, state_of
from control_plane.resources.parse import Source, parse
from control_plane.store import State
from meshproxy.contract.resources import TrustSpec

TRUST = TrustSpec(trust_domain="mesh.local", roots=("root",))


def state(*texts: str, placements: dict[str, Placement] | None = None) -> State:
    """Return the state that these files make; errors in them fail the test."""
    files = {Path(f"{index}.yaml"): dedent(text) for index, text in enumerate(texts)}
    examined = {path: examine(text, path) for path, text in files.items()}
    made = state_of(choose(examined, {}), Placements(workloads=placements or {}))
    errors = [str(finding) for finding in made.findings if finding.severity == "error"]
    assert errors == [], errors
    return made


def messages(text: str) -> list[str]:
    """Return the findings of one file by itself."""
    return [str(finding) for finding in examine(dedent(text), Path("f.yaml")).findings]


def source(text: str) -> Source:
    """Return the one resource of a file."""
    (only,), findings = parse(dedent(text), "f.yaml")
    assert findings == []
    return only


def service(name: str, namespace: str = "default", port: int = 80, app_protocol: str = "") -> str:
    """Return the YAML of a Service whose endpoints are labelled with its name."""
    said = f", appProtocol: {app_protocol}" if app_protocol else ""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: {port}, targetPort: http{said}}}]
"""


def workload(name: str, namespace: str = "default", version: str = "v1") -> str:
    """Return the YAML of a Workload that listens on 8080."""
    return f"""
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{app: {name}, version: {version}}}
spec:
  ports: [{{port: 8080, name: http}}]
"""


def route(
    name: str,
    parent: str,
    rules: str,
    namespace: str = "default",
    home: str = "default",
    kind: str = "HTTPRoute",
) -> str:
    """Return the YAML of an HTTPRoute, or of another kind; `rules` is one line of YAML."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: {parent}, namespace: {home}}}]
  rules: {rules}
"""


def tcp_route(
    name: str, parent: str, *backends: str, namespace: str = "default", home: str = "default"
) -> str:
    """Return the YAML of a TCPRoute to port 80 of each backend."""
    refs = ", ".join(f"{{name: {backend}, namespace: {home}, port: 80}}" for backend in backends)
    return route(name, parent, f"[{{backendRefs: [{refs}]}}]", namespace, home, "TCPRoute")


def policy(
    name: str,
    spec: str,
    target: str = "a",
    namespace: str = "default",
    kind: str = "TrafficPolicy",
    metadata: str = "",
    section: str = "",
) -> str:
    """
    Return the YAML of a policy for a Service; `spec` is the inside of one line of YAML.

    Args:
        metadata: More of it, such as ``, creationTimestamp: '…'``.
        section: The name of the port that is meant; all ports without.
    """
    ref = f"{{group: '', kind: Service, name: {target}{section and f', sectionName: {section}'}}}"
    return f"""
apiVersion: meshproxy.io/v1alpha1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}{metadata}}}
spec: {{targetRefs: [{ref}], {spec}}}
"""


def security(
    kind: str, spec: str, name: str = "p", namespace: str = "default", metadata: str = ""
) -> str:
    """Return the YAML of a security policy; `spec` is the inside of one line of YAML."""
    return f"""
apiVersion: meshproxy.io/v1alpha1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}{metadata}}}
spec: {{{spec}}}
"""


def mesh_config(spec: str, namespace: str = "default") -> str:
    """Return the YAML of the MeshConfig; `spec` is the inside of one line of YAML."""
    return security("MeshConfig", spec, "mesh", namespace)


def tls_route(name: str, parent: str, hostnames: str, *backends: str) -> str:
    """Return the YAML of a TLSRoute to port 80 of each backend; `hostnames` is one line of YAML."""
    refs = ", ".join(f"{{name: {backend}, port: 80}}" for backend in backends)
    text = route(name, parent, f"[{{backendRefs: [{refs}]}}]", kind="TLSRoute")
    return f"{text}  hostnames: {hostnames}\n"
