"""
Deltas: from the snapshot a proxy holds and an update to the snapshot that results.

Pure.  All or nothing: either every change fits and the result has the version that the control
plane says it has, or nothing has happened.  Comparing that version is what shows at once when
the two sides have come to believe different things.
"""

from typing import Any

from meshproxy.contract import wire
from meshproxy.contract.discovery import Change, Update
from meshproxy.contract.resources import KINDS, SECTIONS, Kind, Resource, Snapshot, name_of
from meshproxy.contract.wire import ContractError

Versions = dict[Kind, dict[str, str]]


def versions_of(snapshot: Snapshot) -> Versions:
    """Return what a Hello says of `snapshot`: the version of each resource, by kind and name."""
    return {
        kind: {name_of(r): wire.resource_version(r) for r in getattr(snapshot, section)}
        for kind, section in SECTIONS.items()
    }


def apply(snapshot: Snapshot, update: Update) -> Snapshot:
    """
    Return what `snapshot` becomes by `update`.

    Raises:
        ContractError: A resource is not what its kind asks for, is not what it says it is, or the
            result is not the version that the update names; the path begins with the resource.
    """
    resources: dict[Kind, dict[str, Resource]] = {
        kind: {name_of(r): r for r in getattr(snapshot, section)}
        for kind, section in SECTIONS.items()
    }
    for removal in update.removed:
        if resources[removal.kind].pop(removal.name, None) is None:
            raise ContractError(
                f"{removal.kind}/{removal.name}", "to be removed, but it is not held"
            )
    seen: set[tuple[Kind, str]] = set()
    for change in update.changed:
        if (change.kind, change.name) in seen:
            raise ContractError(_where(change), "stands twice in one update")
        seen.add((change.kind, change.name))
        resources[change.kind][change.name] = _resource(change)
    sections: dict[str, Any] = {
        section: tuple(resource for _name, resource in sorted(resources[kind].items()))
        for kind, section in SECTIONS.items()
    }
    result = Snapshot(version=update.version, **sections)
    check_version(result)
    return result


def check_version(snapshot: Snapshot) -> None:
    """
    Check that a snapshot is what its version says.

    Raises:
        ContractError: The version is not the hash of the content.
    """
    version = wire.version_of(snapshot)
    if version != snapshot.version:
        raise ContractError("version", f"the content is {version}, expected {snapshot.version}")


def _resource(change: Change) -> Resource:
    try:
        resource = wire.decode(bytes(change.spec), KINDS[change.kind])
    except ContractError as error:
        raise ContractError(f"{_where(change)} {error.path}".strip(), error.reason) from None
    if name_of(resource) != change.name:
        raise ContractError(_where(change), f"is called {name_of(resource)!r} by its own content")
    version = wire.resource_version(resource)
    if version != change.version:
        raise ContractError(_where(change), f"has version {version}, expected {change.version}")
    return resource


def _where(change: Change) -> str:
    return f"{change.kind}/{change.name}"
