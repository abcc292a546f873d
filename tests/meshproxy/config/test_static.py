"""A snapshot from a file."""

from pathlib import Path

import pytest

from meshproxy.config.static import read_snapshot
from meshproxy.contract import wire
from meshproxy.contract.resources import ClusterSpec, Snapshot
from meshproxy.contract.wire import ContractError

SNAPSHOT = Snapshot(clusters=(ClusterSpec(name="catalog", connect_timeout=7),))


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    """Both give equal snapshots, with the version that their content has."""
    json, yaml = tmp_path / "a.json", tmp_path / "a.yaml"
    json.write_bytes(wire.encode(SNAPSHOT))
    yaml.write_text("clusters:\n- name: catalog\n  connect_timeout: 7  # ms\n")

    assert read_snapshot(json) == read_snapshot(yaml)
    assert read_snapshot(json).clusters == SNAPSHOT.clusters
    assert read_snapshot(json).version == wire.version_of(SNAPSHOT)


@pytest.mark.parametrize(
    ("name", "text", "where", "why"),
    [
        ("a.json", '{"clusters": [{"name": "a", "prot": 1}]}', "clusters[0]", "prot"),
        ("a.json", '{"clusters": [{"name": 1}]}', "clusters[0].name", "str"),
        ("a.json", '{"clusters": [', "", "truncated"),
        ("a.yaml", "clusters:\n- name: a\n  connect_timeout: soon", "clusters[0].connect_timeout", "int"),
        ("a.yml", "clusters: [", "", "YAML"),
        ("a.yaml", "- 1", "", "object"),
        ("a.yaml", "", "", "the file is empty"),
        ("a.yaml", "clusters: []\nclusters: []", "", "stands twice"),
    ],
)  # fmt: skip
def test_errors_name_file_place_and_reason(
    tmp_path: Path, name: str, text: str, where: str, why: str
) -> None:
    """Whoever wrote the file can find the mistake without a search."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ContractError) as caught:
        read_snapshot(path)

    assert str(path) in caught.value.path
    assert caught.value.path.endswith(where or name)
    assert why in caught.value.reason


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(ContractError, match=r"nowhere\.json: cannot be read: No such file"):
        read_snapshot(tmp_path / "nowhere.json")
