import json
from pathlib import Path
from typing import Any

import pytest

from control_plane import config
from control_plane.config import ConfigError


@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
def test_paths_are_relative_to_the_file(name: str, tmp_path: Path) -> None:
    """A directory with everything in it can be moved."""
    (tmp_path / name).write_text(json.dumps({"state": "state", "files": ["mesh", "/etc/mesh"]}))
    read = config.read(tmp_path / name)
    assert read.state == tmp_path / "state"
    assert read.files == (tmp_path / "mesh", Path("/etc/mesh"))
    assert read.placements is None
    assert (read.discovery.port, read.api.port) == (15012, 15014)


def test_an_authority_and_a_cluster_of_ones_own(tmp_path: Path) -> None:
    """Files beside the configuration; of Kubernetes, the places where a pod finds everything."""
    own = {"root": "root.pem", "certificate": "issuing.pem", "key": "issuing.key"}
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"state": "s", "files": ["f"], "authority": own, "kubernetes": {}}))
    read = config.read(path)
    assert read.authority is not None
    assert read.authority.key == tmp_path / "issuing.key"
    assert read.kubernetes is not None
    assert read.kubernetes.api_server == "https://kubernetes.default.svc"
    assert read.kubernetes.audience == "meshproxy"
    assert read.kubernetes.token.is_absolute()


def test_with_tls_the_api_may_be_reached_from_elsewhere(tmp_path: Path) -> None:
    """And whoever has a certificate that is listed needs no token."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "state: s\nfiles: [f]\napi: {port: 1, address: 0.0.0.0}\n"
        "access: {tls: true, hosts: [mesh.example], operators: [spiffe://mesh.local/ns/a/sa/b]}\n"
    )
    read = config.read(path)
    assert read.access.operators == ("spiffe://mesh.local/ns/a/sa/b",)
    assert read.access.hosts == ("mesh.example",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"files": []}, "files: Expected `array` of length >= 1"),
        ({"files": "mesh"}, "files: Expected `array`, got `str`"),
        ({"files": [1]}, r"files\[0\]: expected a path"),
        ({"discovery": {"port": 70000}}, "discovery.port: Expected `int` <= 65535"),
        ({"api": {"address": ""}}, "api.*: Expected|missing required field `port`"),
        ({"log_level": "loud"}, "log_level: Invalid enum value 'loud'"),
        ({"stat": 1}, "unknown field `stat`"),
        ({"api": {"port": 1, "address": "0.0.0.0"}}, "api.address: expected a loopback address"),
        ({"api": {"port": 1, "address": "mesh.example"}}, "api.address: expected a loopback"),
        (
            {"access": {"operators": ["spiffe://a/ns/b/sa/c"]}},
            "access.operators: certificates need access.tls",
        ),
        (
            {"access": {"tls": True, "viewers": ["spiffe://a/b", "me"]}},
            r"access.viewers\[1\]: .*'me'",
        ),
        ({"access": {"tls": True, "viewer": []}}, "unknown field `viewer`"),
        (
            {"authority": {"root": "r", "key": "k"}},
            "authority.*missing required field `certificate`",
        ),
        (
            {"kubernetes": {"api_server": "kube:443"}},
            "kubernetes.api_server: Expected `str` matching",
        ),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    """File, field, expectation."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"state": "s", "files": ["f"], **change}))
    with pytest.raises(ConfigError, match=expected) as caught:
        config.read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.json", "{", "expected JSON"),
        ("c.yaml", "a: [", "expected YAML"),
        ("c.yaml", "", "the whole file: Expected `object`"),
    ],
)
def test_damage_says_what_was_expected(name: str, text: str, expected: str, tmp_path: Path) -> None:
    """No traceback for a typing error."""
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=expected):
        config.read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The most common mistake reads well."""
    with pytest.raises(ConfigError, match=r"c\.yaml: cannot be read"):
        config.read(tmp_path / "c.yaml")
