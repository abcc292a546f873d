"""`meshctl authz check`, from the words typed to the words printed."""

import json
from pathlib import Path

import pytest

from control_plane.cli.main import main
from tests.control_plane.cli.conftest import Api
from tests.control_plane.cli.policed import folder, serve


def check(files: Path, *words: str) -> int:
    return main(["authz", "check", "-f", str(files), *words])


def test_allowed_and_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdict, rule with its place, audit, mTLS, and why the others did not match; exit code 0."""
    files = folder(tmp_path)
    words = ("--from", "storefront", "--to", "catalog-v2", "--path", "/items/1")
    assert check(files, *words) == 0
    path = files / "policies.yaml"
    assert capsys.readouterr().out == (
        "spiffe://mesh.local/ns/default/sa/storefront → catalog-v2: GET /items/1\n"
        "\n"
        "default/catalog-v2:8080  allowed: rule 0 of AuthorizationPolicy default/catalog"
        f" ({path}:7)\n"
        "  mTLS of the port: STRICT\n"
        f"  audited by AuthorizationPolicy default/watched ({path}:20): would have been denied\n"
        "  did not match:\n"
        f"    ALLOW default/catalog rule admins ({path}:9): wants claim role admin\n"
        f"    DENY default/no-secrets rule 0 ({path}:18): wants path /secret*\n"
    )


def test_one_server_that_denies_is_a_no(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a service, every server is asked; a claim is believed by one of the two."""
    words = ("--from", "storefront", "--to", "catalog", "--claim", "role=admin", "-o", "json")
    assert check(folder(tmp_path), *words) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["allowed"] is False
    assert {one["workload"]: one["allowed"] for one in told["decisions"]} == {
        "default/catalog-v1": True,
        "default/catalog-v2": False,
    }
    first = told["decisions"][0]
    assert first["rule"] == "admins"
    assert first["location"].endswith("policies.yaml:9")
    assert all(one["location"] for one in first["unmatched"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--from", "none", "--to", "catalog-v1"), 1, "takes no plaintext (mTLS STRICT)"),
        (
            ("--from", "storefront", "--to", "catalog-v1", "--path", "/secret"),
            1,
            "DENIED: rule 0 of AuthorizationPolicy default/no-secrets",
        ),
        (("--from", "storefront", "--to", "catalog-v1"), 1, "none of their rules matches"),
        (
            ("--from", "catalog-v1", "--to", "storefront", "--host", "x", "-H", "a=b"),
            0,
            "allowed: no ALLOW policy selects this workload",
        ),
        (
            ("--from", "storefront", "--to", "data/db", "--connection", "--address", "::1"),
            0,
            "a connection",
        ),
        (
            ("--from", "storefront", "--to", "catalog-v1", "--claim", "iss=other"),
            1,
            "the token is of an issuer that this workload does not believe (401)",
        ),
    ],
)
def test_verdicts(
    words: tuple[str, ...],
    code: int,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a sentence, and as an exit code."""
    assert check(folder(tmp_path), *words) == code
    assert said in capsys.readouterr().out


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names that nobody has and questions that make no sense: 2, and what was meant."""
    files = folder(tmp_path)
    assert check(files, "--from", "storefrnt", "--to", "catalog") == 2
    assert "did you mean storefront?" in capsys.readouterr().err
    assert check(files, "--from", "none", "--to", "catalog", "--connection", "-H", "a=b") == 2
    assert "a connection has no headers" in capsys.readouterr().err


def test_a_running_mesh_is_asked_by_default(
    tmp_path: Path, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """The snapshots of its control plane decide."""
    serve(api, folder(tmp_path))
    words = ["authz", "check", "--from", "storefront", "--to", "catalog", "--path", "/items/1"]
    assert main([*words, "--context", str(api.context)]) == 0
    assert capsys.readouterr().out.count("allowed: rule 0") == 2
