from pathlib import Path

import msgspec
import pytest

from control_plane import placement
from control_plane.placement import Placement, Placements
from meshproxy.contract import wire


def test_reads_what_was_written(tmp_path: Path) -> None:
    """Port maps come back with numbers as keys, though JSON has only strings."""
    written = Placements(workloads={"a/b": Placement(inbound_ports={80: 2000})})
    path = tmp_path / "placements.json"
    path.write_bytes(msgspec.json.encode(written))
    assert placement.read(path) == written


def test_a_missing_file_is_an_empty_mesh(tmp_path: Path) -> None:
    """Nothing was placed yet."""
    assert placement.read(tmp_path / "none") == Placements()


def test_a_wrong_port_is_named(tmp_path: Path) -> None:
    """The error says which field."""
    path = tmp_path / "placements.json"
    path.write_text('{"workloads": {"a/b": {"outbound_port": 0}}}')
    with pytest.raises(wire.ContractError, match="outbound_port"):
        placement.read(path)
