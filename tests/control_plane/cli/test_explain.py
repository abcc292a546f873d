"""`meshctl explain URL`, from the words typed to the words printed."""

import json
from pathlib import Path

import pytest

from control_plane.cli.main import main
from tests.control_plane.cli.conftest import Api
from tests.control_plane.cli.policed import folder, serve


def explain(files: Path, *words: str) -> int:
    return main(["explain", "-f", str(files), *words])


def test_step_by_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Virtual host, route, servers, authorization, policies; in this order."""
    files = folder(tmp_path)
    assert explain(files, "--from", "storefront", "http://catalog/new/items/3") == 0
    told = capsys.readouterr().out
    route, policies = files / "route.yaml", files / "policies.yaml"
    assert told.startswith(
        "default/storefront asks for GET http://catalog/new/items/3\n"
        "\n"
        "1. catalog:80 is virtual host default/catalog:80\n"
        "\n"
        f"2. route HTTPRoute/default/catalog/0 ({route}:1)\n"
        "   matches: GET, PathPrefix /new\n"
    )
    assert (
        "\n"
        "3. servers, which see GET catalog/items/3\n"
        "   100% default/catalog-v2:80\n"
        "     default/catalog-v2:8080 default/catalog-v2 weight 1\n"
        "\n"
        "4. authorization there\n"
        "   default/catalog-v2:8080  allowed: rule 0 of AuthorizationPolicy default/catalog"
        f" ({policies}:7)\n"
        "     mTLS of the port: STRICT\n"
        f"     audited by AuthorizationPolicy default/watched ({policies}:20): would have been"
        " denied\n"
        "\n"
        "5. policies: the defaults, then what differs\n"
    ) in told
    assert told.rstrip().endswith("timeouts              request 2s")


def test_what_ends_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody of that name, no route, no endpoint, a denial: each is said where it happens; exit code 1."""
    files = folder(tmp_path)
    for url, said in (
        ("http://catlog/", "1. catlog:80 is nobody's"),
        ("http://catalog/none", "2. no route matches"),
        ("http://catalog/lost", "no endpoint: 503 no-healthy-endpoint"),
        ("http://catalog/secret", "DENIED: rule 0 of AuthorizationPolicy default/no-secrets"),
    ):
        assert explain(files, "--from", "storefront", url) == 1
        assert said in capsys.readouterr().out
    assert explain(files, "--from", "storefront", "tcp://db.data:5432") == 0
    assert "opaque TCP of data/db:5432" in capsys.readouterr().out


def test_json(tmp_path: Path, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as data; a running mesh answers as its files do."""
    files = folder(tmp_path)
    words = ["--from", "storefront", "http://catalog/items/3", "-X", "PUT", "-o", "json"]
    assert explain(files, *words) == 1
    offline = json.loads(capsys.readouterr().out)
    assert offline["route"] == "HTTPRoute/default/catalog/3"
    assert [one["share"] for one in offline["backends"]] == ["75%", "25%"]
    (first, _) = offline["backends"][0]["endpoints"]
    assert first["authorization"]["allowed"] is False
    assert {one["name"] for one in offline["policies"]["clusters"]} == {
        "default/catalog:80",
        "default/catalog-v2:80",
    }
    serve(api, files)
    assert main(["explain", *words, "--context", str(api.context)]) == 1
    assert json.loads(capsys.readouterr().out) == offline


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http://catalog/",), "--from WORKLOAD"),
        (("--from", "storefrnt", "http://catalog/"), "did you mean storefront?"),
        (("--from", "storefront", "catalog"), "is neither a URL nor an id"),
        (("0123456789abcdef",), "an id needs the running mesh"),
    ],
)
def test_usage(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says what is missing, or what was nearly meant; 2."""
    assert explain(folder(tmp_path), *words) == 2
    assert said in capsys.readouterr().err
