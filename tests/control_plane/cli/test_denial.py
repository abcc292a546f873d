"""`meshctl explain ID`: every sidecar is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from control_plane.cli.main import main
from control_plane.placement import Placement, Placements
from meshproxy.contract import wire
from tests.control_plane.cli.conftest import Api
from tests.control_plane.cli.policed import folder, serve
from tests.helpers.ports import free_port

ID = "0123456789abcdef"
DENIAL = {
    "id": ID,
    "at": 1_800_000_000.0,
    "source": "spiffe://mesh.local/ns/default/sa/storefront",
    "method": "PUT",
    "authority": "catalog",
    "path": "/secret",
    "policy": "default/no-secrets",
    "rule": "0",
    "reason": "",
}


def mesh(api: Api, folder_: Path, denials: list[dict[str, Any]]) -> Path:
    """A mesh of which two sidecars have told their admin ports, one of which answers."""
    files = folder(folder_)
    serve(api, files)
    proxies = [
        {"workload": "default/catalog-v1", "admin": api.address},
        {"workload": "default/storefront", "admin": f"127.0.0.1:{free_port()}"},
        {"workload": "data/db", "admin": None},
    ]
    api.answers["/api/v1/proxies"] = (200, proxies)
    page = f"/denials?id={ID}"
    api.answers[page] = (200, denials)
    api.open.add(page)
    return files


def test_a_denial_is_told(tmp_path: Path, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Who asked what, when and where, and which rule was against it."""
    files = mesh(api, tmp_path, [DENIAL])
    assert main(["explain", ID, "--context", str(api.context)]) == 0
    assert capsys.readouterr().out == (
        f"{ID}  denied at 2027-01-15T08:00:00Z by the sidecar of default/catalog-v1\n"
        "  caller: spiffe://mesh.local/ns/default/sa/storefront\n"
        "  asked:  PUT catalog/secret\n"
        "  why:    rule 0 of AuthorizationPolicy default/no-secrets"
        f" ({files / 'policies.yaml'}:18)\n"
    )
    assert main(["explain", ID, "--context", str(api.context), "-o", "json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["at"] == "2027-01-15T08:00:00Z"
    assert told["workload"] == "default/catalog-v1"


def test_connections_tokens_and_silence(
    tmp_path: Path, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody's connection that no rule allows; a token that was wrong; none of it can command a terminal."""
    nobody = {**DENIAL, "source": "", "method": "", "policy": "", "rule": ""}
    token = {**DENIAL, "policy": "", "reason": "the token has expired", "path": "/\x1b[2J"}
    mesh(api, tmp_path, [nobody, token])
    assert main(["explain", ID, "--context", str(api.context)]) == 0
    told = capsys.readouterr().out
    assert "caller: unknown (no certificate)\n  asked:  a connection\n" in told
    assert "why:    no rule of the ALLOW policies matches" in told
    assert "why:    the token has expired" in told
    assert "\x1b" not in told


def test_nobody_remembers(tmp_path: Path, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Said with those that gave no answer; placements know admin ports of which nobody told."""
    mesh(api, tmp_path, [])
    placed = Placements(workloads={"data/db": Placement(admin_port=free_port())})
    (tmp_path / "placements.json").write_bytes(wire.encode(placed))
    assert main(["explain", ID, "--context", str(api.context)]) == 1
    told = capsys.readouterr().err
    assert f"no sidecar remembers a denial {ID}" in told
    assert "data/db, default/storefront gave no answer" in told
