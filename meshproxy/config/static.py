"""
The static configuration: a snapshot from a file, for a proxy without a control plane.

JSON is read by the contract's own decoder; YAML, for people, needs PyYAML, which a sidecar of
a mesh never loads.
"""

from pathlib import Path

import msgspec

from meshproxy.config import strict_yaml
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
            snapshot = wire.convert(strict_yaml.load(data), Snapshot)
        else:
            snapshot = wire.decode(data, Snapshot)
    except ContractError as error:
        raise ContractError(f"{path}: {error.path}".rstrip(": "), error.reason) from None
    except strict_yaml.YamlError as error:
        raise ContractError(str(path), str(error)) from None
    return msgspec.structs.replace(snapshot, version=wire.version_of(snapshot))
