"""A proxy's own certificate and the roots that it trusts."""

import json
from typing import Any

import pytest

from control_plane.cli.main import main
from control_plane.cli.output import dated
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec
from tests.control_plane.cli.conftest import Api
from tests.helpers.certificates import TestAuthority

SHOP = "spiffe://demo.mesh/ns/default/sa/shop"
ROOT = TestAuthority()
NOT_AFTER = 4_102_444_800.0
FACTS = {
    "identity": SHOP,
    "certificate": {
        "identity": SHOP,
        "serial": "abc1",
        "issuer": "CN=demo",
        "not_before": 0.0,
        "not_after": NOT_AFTER,
    },
    "last_error": None,
    "roots": [{"subject": "CN=root", "serial": "1", "sha256": "f00d", "not_after": 1.0}],
}


@pytest.fixture
def mesh(api: Api) -> Api:
    """A control plane that knows one proxy, whose admin pages answer at the same address."""
    snapshot = Snapshot(trust=(TrustSpec(trust_domain="demo.mesh", roots=(ROOT.pem,)),))
    api.answers["/api/v1/proxies/default/shop/snapshot"] = (200, json.loads(wire.encode(snapshot)))
    proxy = {
        "workload": "default/shop",
        "identity": SHOP,
        "admin": api.address,
        "certificate_not_after": NOT_AFTER,
    }
    api.answers["/api/v1/proxies"] = (200, [proxy])
    api.answers["/certs"] = (200, FACTS)
    api.open.add("/certs")
    return api


def ask(api: Api, *words: str) -> int:
    return main(["config", "shop", "certs", *words, "--context", str(api.context)])


def data(api: Api, capsys: pytest.CaptureFixture[str]) -> Any:
    assert ask(api, "-o", "json") == 0
    return json.loads(capsys.readouterr().out)


def test_the_proxy_is_asked(mesh: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own certificate with identity, life, issuer and serial; its roots with fingerprint."""
    assert ask(mesh) == 0
    text = capsys.readouterr().out

    own, root = text.split("\n\n")
    assert own.splitlines()[1].split()[:3] == [
        SHOP, "1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z",
    ]  # fmt: skip
    assert own.splitlines()[1].split()[4:] == ["CN=demo", "abc1"]
    assert root.splitlines()[1].split() == ["CN=root", "1970-01-01T00:00:01Z", "EXPIRED", "f00d"]  # fmt: skip
    assert data(mesh, capsys) == dated({"source": "proxy", **FACTS})


def test_a_proxy_out_of_reach_is_told_of(mesh: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """By the control plane: until when its certificate is good, and the roots it was given."""
    del mesh.answers["/certs"]

    facts = data(mesh, capsys)
    assert ask(mesh) == 0

    assert facts["certificate"] == {"not_after": "2100-01-01T00:00:00Z"}
    assert [root["subject"] for root in facts["roots"]] == [
        ROOT.certificate.subject.rfc4514_string()
    ]
    text = capsys.readouterr().out
    assert SHOP in text
    assert text.endswith("this is the control plane's word\n")


def test_another_proxy_at_the_same_address_is_not_believed(
    mesh: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """An admin address is of the proxy's machine, which need not be this one."""
    mesh.answers["/certs"] = (200, {**FACTS, "identity": "spiffe://demo.mesh/ns/default/sa/other"})

    assert data(mesh, capsys)["source"] == "control plane"


def test_a_renewal_that_fails_is_said(mesh: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate that is good for a while yet can still be in trouble."""
    mesh.answers["/certs"] = (200, {**FACTS, "last_error": "no authority"})

    assert ask(mesh) == 0
    assert capsys.readouterr().out.endswith("not renewed: no authority\n")
