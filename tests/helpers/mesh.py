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
    assert errors == []
    return made


def messages(text: str) -> list[str]:
    """Return the findings of one file by itself."""
    return [str(finding) for finding in examine(dedent(text), Path("f.yaml")).findings]


def source(text: str) -> Source:
    """Return the one resource of a file."""
    (only,), findings = parse(dedent(text), "f.yaml")
    assert findings == []
    return only


def service(name: str, namespace: str = "default", port: int = 80) -> str:
    """Return the YAML of a Service whose endpoints are labelled with its name."""
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: {port}, targetPort: http}}]
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
    name: str, parent: str, rules: str, namespace: str = "default", home: str = "default"
) -> str:
    """Return the YAML of an HTTPRoute; `rules` is one line of YAML."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: "", kind: Service, name: {parent}, namespace: {home}}}]
  rules: {rules}
"""
