"""
Where a `jwksFile` may lead: not out of the folders that operators gave.

Who may write a policy could else have the control plane read any file of its machine, learn from what
is said of it whether it exists, and take for an issuer's keys what somebody else has put there.  So a
file counts as where it really is: symbolic links are followed first (a mounted volume of Kubernetes is
made of them), then asked whether that is below a folder of the configuration, or below one that the
MeshConfig lists.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .resources.finding import Finding
from .resources.model import DEFAULT_MESH, MeshConfig
from .resources.security import RequestAuthentication
from .store import State


class KeyFileError(Exception):
    """A file that cannot be used; says why, and nothing of what is in it."""


class OutsideError(KeyFileError):
    """A file that is not where it may be."""


def folders(paths: Iterable[Path], mesh: MeshConfig) -> list[Path]:
    """
    Return the folders below which files with keys may be.

    Args:
        paths: Files and folders of the configuration.
        mesh: Lists more.
    """
    given = [path.parent if path.is_file() else path for path in paths]
    return [*given, *map(Path, mesh.spec.jwks.allowed_folders)]


def place_of(policy: RequestAuthentication, name: str, state: State) -> Path:
    """Return where a `jwksFile` says that it is: relative to the file that declares the policy."""
    where = state.locations.get(
        f"RequestAuthentication/{policy.metadata.namespace}/{policy.metadata.name}"
    )
    return (Path(where.file).parent if where else Path()) / name


def really_at(path: Path, allowed: Iterable[Path]) -> Path:
    """
    Return where a file really is.

    Raises:
        OutsideError: Not in a folder that is allowed; whether there is such a file is not said.
        KeyFileError: No file can have such a name.
    """
    try:
        found = Path(os.path.realpath(path))
    except ValueError:
        raise KeyFileError("cannot be read: no name of a file") from None
    if any(found.is_relative_to(os.path.realpath(folder)) for folder in allowed):
        return found
    raise OutsideError(
        "leads out of the folders of the configuration, and spec.jwks.allowedFolders of the "
        "MeshConfig lists none that it is in, so it is not read"
    )


def read(path: Path, allowed: Iterable[Path], largest: int) -> bytes:
    """
    Return the first `largest` bytes of a file.

    Raises:
        KeyFileError: It is outside, is none, or cannot be read.
    """
    found = really_at(path, allowed)
    try:
        # Not by a link that took the place of what was asked about; nor does a pipe make us wait.
        handle = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise KeyFileError("is not a regular file")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(largest)
        finally:
            os.close(handle)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None


def misplaced(state: State, paths: Sequence[Path]) -> Iterator[Finding]:
    """Yield the files that are not read because of where they are."""
    allowed = folders(paths, state.mesh_config or DEFAULT_MESH)
    for policy in state.security.values():
        if not isinstance(policy, RequestAuthentication):
            continue
        for index, rule in enumerate(policy.spec.jwt_rules):
            if rule.jwks_file is None:
                continue
            try:
                really_at(place_of(policy, rule.jwks_file, state), allowed)
            except KeyFileError as error:
                yield state.finding(
                    policy.kind,
                    f"{policy.metadata.namespace}/{policy.metadata.name}",
                    f"spec.jwtRules[{index}].jwksFile",
                    f"{error}, and no token of this issuer is right",
                    "unresolved",
                )
