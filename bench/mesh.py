"""
A mesh of two workloads as `meshctl up` runs it: sidecars that a control plane configures.

Their memory is what a sidecar with its discovery stream takes; with as many services and routes as
the static pairs have.  It carries no load.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import lag
from .cost import below
from .site import HOSTS, PREFIXES, Site

STARTING = 60.0
"""Seconds for half a dozen processes, one after the other."""

_MESH = """\
apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustDomain: bench.mesh, mtls: STRICT}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: a, labels: {app: a}}
spec: {serviceAccount: a}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: b, labels: {app: b}}
spec: {serviceAccount: b, ports: [{port: 8080}]}
"""
_SERVICE = """\
---
apiVersion: v1
kind: Service
metadata: {name: svc%(number)d}
spec:
  selector: {app: b}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: svc%(number)d}
spec:
  parentRefs: [{group: "", kind: Service, name: svc%(number)d}]
  rules:
%(rules)s"""
_RULE = """\
    - matches: [{path: {type: PathPrefix, value: /api/v%(prefix)d}}]
      backendRefs: [{name: svc%(number)d, port: 80}]
"""


def written() -> str:
    """Return what a person would write for it."""
    return _MESH + "".join(
        _SERVICE
        % {
            "number": number,
            "rules": "".join(
                _RULE % {"prefix": prefix, "number": number} for prefix in range(PREFIXES)
            ),
        }
        for number in range(HOSTS)
    )


@contextmanager
def running(site: Site) -> Iterator[list[int]]:
    """
    Run it; yield the processes of the two sidecars once they obey what the control plane says.

    Raises:
        StartError: It does not start.
    """
    folder = site.subfolder(site.unique("mesh"))
    (folder / "mesh.yaml").write_text(written())
    run = folder / "run"
    meshctl = site.python(
        "meshctl", folder, "control_plane.cli.main", "up", "-f", str(folder / "mesh.yaml"),
        "--run-dir", str(run),
    )  # fmt: skip
    try:
        meshctl.until("its sidecars are in sync", lambda: _admins(run) is not None, STARTING)
        for admin in _admins(run) or ():
            lag.read(admin)  # what tells of metrics is loaded when they are first asked for
        yield [pid for pid in below(meshctl.pid) if _is_sidecar(pid)]
    finally:
        site.processes.end([meshctl])


def _admins(run: Path) -> list[int] | None:
    """Return the admin ports of all proxies, once they are in sync."""
    try:
        context = json.loads((run / "context.json").read_text())
        token = (run / context["token_file"]).read_text().strip()
        connection = http.client.HTTPConnection(context["api"].removeprefix("http://"), timeout=5)
        try:
            connection.request(
                "GET", "/api/v1/proxies", headers={"Authorization": f"Bearer {token}"}
            )
            proxies: list[dict[str, Any]] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
    except (OSError, ValueError, KeyError, http.client.HTTPException):  # it has only just started
        return None
    if not proxies or any(proxy["state"] != "SYNCED" for proxy in proxies):
        return None
    return [int(proxy["admin"].rpartition(":")[2]) for proxy in proxies]


def _is_sidecar(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"meshproxy" in command and b"--bootstrap" in command
