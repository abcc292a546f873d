"""Is the mesh well, and what is to be mended."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control_plane.cli.main import main
from control_plane.cli.processes import FILE, Life, Process, Report
from tests.control_plane.cli.conftest import Api

FINDING = {
    "severity": "error",
    "file": "routes.yaml",
    "line": 7,
    "kind": "HTTPRoute",
    "name": "default/catalog",
    "field": "spec.rules[0]",
    "message": "is wrong, expected right",
}


def status(findings: list[Any] | None = None, **proxies: int) -> dict[str, Any]:
    return {
        "build": "0.1.0",
        "revision": 12,
        "trust_domain": "demo.mesh",
        "uptime_seconds": 190.0,
        "resources": {"Service": 5, "HTTPRoute": 1},
        "findings": findings or [],
        "proxies": {"SYNCED": 4, "STALE": 0, "REFUSED": 0, "DISCONNECTED": 0, **proxies},
    }


def run(api: Api, *words: str) -> int:
    return main(["status", "--context", str(api.context), *words])


def test_a_mesh_that_is_well(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything at a glance, and 0."""
    api.answers["/api/v1/status"] = (200, status())

    assert run(api) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"control plane   http://{api.address}   build 0.1.0   up 3m10s",
        "trust domain    demo.mesh",
        "revision        12",
        "resources       5 Service, 1 HTTPRoute",
        "proxies         4 SYNCED",
        "findings        none",
    ]


def test_findings_are_shown_until_they_are_mended(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """In validate's format, those that are only unresolved marked so; and 1."""
    unresolved = {**FINDING, "severity": "unresolved", "line": 9}
    api.answers["/api/v1/status"] = (200, status([FINDING, unresolved]))

    assert run(api) == 1
    line = "HTTPRoute/default/catalog: spec.rules[0]: is wrong, expected right"
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "findings        2",
        f"  routes.yaml:7: {line}",
        f"  unresolved: routes.yaml:9: {line}",
    ]


@pytest.mark.parametrize(
    ("state", "code"), [("STALE", 0), ("REFUSED", 1), ("DISCONNECTED", 1), ("REVOKED", 1)]
)
def test_proxies_count(api: Api, state: str, code: int) -> None:
    """One that is being told at this moment is no trouble."""
    api.answers["/api/v1/status"] = (200, status(None, **{state: 1}))

    assert run(api) == code


def test_revoked_identities_are_named(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Since when, why, and who is cut off with them; what an operator wrote commands no terminal."""
    cut, unused = (f"spiffe://demo.mesh/ns/default/sa/{name}" for name in ("catalog", "old"))
    now = time.time()
    revoked = [
        {
            "identity": cut,
            "since": now - 190,
            "reason": "stolen\x1b[2J",
            "workloads": ["default/a"],
        },
        {"identity": unused, "since": now - 190, "reason": "", "workloads": []},
    ]
    api.answers["/api/v1/status"] = (200, {**status(), "revoked": revoked})
    assert run(api) == 0  # nobody waits for them: no proxy is REVOKED
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4] == "revoked         2"
    assert lines[-3].startswith(f"  {cut} for 3m1")
    assert lines[-3].endswith("(default/a)")
    assert "stolen" in lines[-3]
    assert "\x1b" not in lines[-3]
    assert lines[-2].endswith("(no workload)")


def test_json_is_what_the_api_says(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same exit code."""
    api.answers["/api/v1/status"] = (200, status([FINDING]))

    assert run(api, "-o", "json") == 1
    local: dict[str, Any] = {"processes": [], "problems": [], "warnings": []}
    assert json.loads(capsys.readouterr().out) == {**status([FINDING]), **local}


def test_what_a_local_mesh_knows_of_its_processes_counts(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crash loop is trouble, a Service without workloads is a warning."""
    api.answers["/api/v1/status"] = (200, status())
    warning = "mesh.yaml:3: Service/default/gone: spec.selector: no workload"

    def write(failures: int) -> None:
        life = Life(
            state="restarting" if failures else "running",
            since=time.time(),
            ending="ended with exit code 127",
            failures=failures,
        )
        app = Process(
            name="typo/app", workload="default/typo", role="app", life=life, log="logs/typo.app.log"
        )
        report = Report(processes=(app,), warnings=(warning,))
        (tmp_path / FILE).write_bytes(msgspec.json.encode(report))

    write(3)
    assert run(api) == 1
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "processes       1, 1 in trouble",
        "  typo/app ended with exit code 127, 3 times in a row; its log: logs/typo.app.log",
        "findings        none",
        "warnings        1",
        f"  {warning}",
    ]
    assert run(api, "-o", "json") == 1
    said = json.loads(capsys.readouterr().out)
    assert len(said["problems"]) == len(said["warnings"]) == 1
    assert said["processes"][0]["life"]["since"].endswith("Z")
    write(0)
    assert run(api) == 0
    assert "processes       1, all well" in capsys.readouterr().out
