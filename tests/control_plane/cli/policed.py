"""A small mesh with policies, as files and behind an API, for tests of what is said about it."""

import json
from pathlib import Path

from control_plane.cli.mesh import Mesh, of_files
from meshproxy.contract import wire
from tests.control_plane.cli.conftest import Api

MESH = """\
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: storefront, labels: {app: storefront}}
spec: {ports: [{port: 8080}]}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: catalog-v1, labels: {app: catalog, version: v1}}
spec: {serviceAccount: catalog, ports: [{port: 8080}]}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: catalog-v2, labels: {app: catalog, version: v2}}
spec: {serviceAccount: catalog, ports: [{port: 8080}]}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: db, namespace: data, labels: {app: db}}
spec: {ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec: {selector: {app: catalog}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v2}
spec: {selector: {app: catalog, version: v2}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80, name: http}, {port: 81, name: other}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {selector: {app: db}, ports: [{port: 5432, appProtocol: tcp}]}
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: catalog}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /new}, method: GET}]
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
      timeouts: {request: 2s}
      backendRefs: [{name: catalog-v2, port: 80}]
    - matches: [{path: {type: Exact, value: /moved}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: else.example, statusCode: 301}}]
    - matches: [{path: {type: Exact, value: /lost}}]
      backendRefs: [{name: nobody, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /items}}, {path: {type: PathPrefix, value: /secret}}]
      backendRefs: [{name: catalog, port: 80, weight: 3}, {name: catalog-v2, port: 80, weight: 1}]
"""
POLICIES = """\
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: catalog}
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
    - from: [{source: {principals: ["*/ns/default/sa/storefront"]}}]
      to: [{operation: {methods: [GET], paths: ["/items/*"]}}]
    - name: admins
      when: [{key: "request.auth.claims[role]", values: [admin]}]
---
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-secrets}
spec:
  action: DENY
  rules:
    - to: [{operation: {paths: ["/secret*"]}}]
---
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: watched}
spec:
  selector: {matchLabels: {version: v2}}
  action: AUDIT
  rules:
    - to: [{operation: {methods: [GET]}}]
---
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: db, namespace: data}
spec:
  rules:
    - from: [{source: {namespaces: [default]}}]
    - from: [{source: {ipBlocks: [10.0.0.0/8]}}]
"""
TOKENS = """\
apiVersion: meshproxy.io/v1alpha1
kind: RequestAuthentication
metadata: {name: users}
spec:
  selector: {matchLabels: {version: v1}}
  jwtRules: [{issuer: "https://id.example", jwksFile: keys.json}]
"""


def folder(path: Path) -> Path:
    """Write the mesh into a folder."""
    made = path / "mesh"
    made.mkdir()
    for name, text in (
        ("mesh", MESH),
        ("route", ROUTE),
        ("policies", POLICIES),
        ("tokens", TOKENS),
    ):
        (made / f"{name}.yaml").write_text(text)
    return made


def serve(api: Api, files: Path) -> Mesh:
    """Let an API answer for the mesh of these files."""
    mesh = of_files([files])
    api.answers["/api/v1/outline"] = (200, json.loads(wire.encode(mesh.outline)))
    for name in mesh.outline.identities:
        data = json.loads(wire.encode(mesh.snapshot(name)))
        api.answers[f"/api/v1/proxies/{name}/snapshot"] = (200, data)
    return mesh
