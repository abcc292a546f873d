"""
The static configuration: a snapshot from a file, for a proxy without a control plane.

JSON is read by the contract's own decoder; YAML, for people, needs PyYAML, which a sidecar of
a mesh never loads.
"""

from pathlib import Path
from typing import Any

import msgspec

from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.wire import ContractError


def read_snapshot(path: Path) -> Snapshot:
    """
    Read a snapshot file.

    Raises:
        ContractError: It cannot be read, or is not a snapshot; says where and why.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(str(path), f"cannot be read: {error.strerror or error}") from None
    try:
        if path.suffix in (".yaml", ".yml"):
            snapshot = wire.convert(_yaml(data), Snapshot)
        else:
            snapshot = wire.decode(data, Snapshot)
    except ContractError as error:
        raise ContractError(f"{path}: {error.path}".rstrip(": "), error.reason) from None
    return msgspec.structs.replace(snapshot, version=wire.version_of(snapshot))


def _yaml(data: bytes) -> Any:
    try:
        import yaml
    except ImportError:
        raise ContractError(
            "", "reading YAML needs PyYAML: pip install pyyaml, or use JSON"
        ) from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ContractError("", f"is not YAML: {error}") from None
