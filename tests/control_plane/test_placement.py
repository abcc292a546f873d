from pathlib import Path

import pytest

from control_plane.placement import Placement, Placements, read
from meshproxy.contract import wire


def test_a_missing_file_is_an_empty_mesh(tmp_path: Path) -> None:
    """The plane may start before anything was placed."""
    assert read(tmp_path / "placements.json") == Placements()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """JSON has only text for keys; ports come back as numbers."""
    placements = Placements(
        workloads={
            "default/catalog-v1": Placement(
                app_ports={8080: 40001},
                inbound_ports={8080: 40002},
                outbound_port=40003,
                service_ports={"default/reviews:80": 40004},
                admin_port=40005,
            )
        }
    )
    path = tmp_path / "placements.json"
    path.write_bytes(wire.encode(placements))
    assert read(path) == placements


def test_what_is_left_out_has_the_usual_ports(tmp_path: Path) -> None:
    """Those of Istio, which operators know."""
    path = tmp_path / "placements.json"
    path.write_text('{"workloads": {"default/a": {}}}')
    placement = read(path).workloads["default/a"]
    assert (placement.address, placement.outbound_port, placement.admin_port) == (
        "127.0.0.1",
        15001,
        15000,
    )


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("{", "", "truncated"),
        ('{"workload": {}}', "", "unknown field `workload`"),
        ('{"workloads": {"a/b": {"admin_port": 0}}}', "workloads[...].admin_port", ">= 1"),
        ('{"workloads": {"a/b": {"app_ports": {"8080": 65536}}}}', "workloads", "<= 65535"),
        ('{"workloads": {"a/b": {"app_ports": {"http": 1}}}}', "workloads", "Expected `int`"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(
    tmp_path: Path, text: str, path: str, reason: str
) -> None:
    """Never half of it is used."""
    file = tmp_path / "placements.json"
    file.write_text(text)
    with pytest.raises(wire.ContractError) as caught:
        read(file)
    assert caught.value.path.startswith(path)
    assert reason in caught.value.reason
