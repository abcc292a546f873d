"""
The one directory that a local mesh writes to, and the lock that says who does.

    DIR/lock                              held (flock) by the running meshctl; its pid inside
    DIR/context.json                      where the API is: what the other verbs look for
    DIR/control-plane.json                configuration of the control plane
    DIR/placements.json                   which workload listens where
    DIR/processes.json                    how each process is, for `meshctl status`
    DIR/roots.pem                         trust bundle, for the sidecars' first contact
    DIR/accepted/                         the files in force, as meshctl read them
    DIR/logs/NAME.log                     what each process said
    DIR/state/TRUST-DOMAIN/…              keys and caches of the control plane and of each sidecar
    DIR/bootstrap/NAMESPACE/NAME.json     bootstrap of a sidecar, NAME.token beside it

State is kept by trust domain because an authority cannot change its own: a demo and a mesh of
one's own may then take turns in the same directory.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from control_plane.cli.errors import CommandError
from control_plane.cli.processes import FILE

DEFAULT = ".mesh"


class RunDirectoryError(CommandError):
    """The directory cannot be used; the message is a sentence for the user."""


def chosen(option: str | None, environment: Mapping[str, str]) -> Path:
    """Return the run directory: the option, else ``$MESH_RUN_DIR``, else ``.mesh``."""
    return Path(option or environment.get("MESH_RUN_DIR") or DEFAULT).absolute()


class RunDirectory:
    """
    Paths inside a run directory, and its lock.

    Raises:
        RunDirectoryError: It cannot be written to, or another meshctl holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.context = path / "context.json"
        self.control_plane = path / "control-plane.json"
        self.placements = path / "placements.json"
        self.processes = path / FILE
        self.roots = path / "roots.pem"
        self.logs = path / "logs"
        self.accepted = path / "accepted"
        self._create()
        self._lock = self._take_lock()

    def bootstrap(self, workload: str) -> Path:
        """Return the bootstrap file of ``namespace/name``."""
        return self.path / "bootstrap" / f"{workload}.json"

    def token(self, workload: str) -> Path:
        """Return the join token file of ``namespace/name``."""
        return self.path / "bootstrap" / f"{workload}.token"

    def state(self, trust_domain: str, *owner: str, user: int | None = None) -> Path:
        """
        Return (and create, for its user alone) the state directory of a process.

        Args:
            trust_domain: Of the mesh.
            owner: Whose it is.
            user: Whom the process runs as, where that is not us.
        """
        path = self.path.joinpath("state", trust_domain, *owner)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        wanted = os.geteuid() if user is None else user
        for one in (path, *path.iterdir()):  # another user may have run it the last time
            if one.lstat().st_uid != wanted:
                os.chown(one, wanted, wanted, follow_symlinks=False)
        path.chmod(0o700)
        return path

    def write(self, path: Path, content: bytes) -> None:
        """Write a 0600 file whole or not at all: readers never see half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        draft.replace(path)

    def release(self) -> None:
        """Let go of the directory: the mesh has stopped."""
        self.context.unlink(missing_ok=True)
        self.processes.unlink(missing_ok=True)
        os.close(self._lock)

    def _create(self) -> None:
        try:
            # Keys will lie here: nobody else has business in it.
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise self._not_writable(error) from None

    def _not_writable(self, error: OSError) -> RunDirectoryError:
        # A mesh that was started with `sudo` leaves the directory to root, keys in it and all.
        try:
            owner = self.path.stat().st_uid
        except OSError:  # there is none yet: its parent is what stands in the way
            owner = os.geteuid()
        whose = "" if owner == os.geteuid() else f" (it belongs to user {owner})"
        return RunDirectoryError(
            f"cannot write to the run directory {self.path}{whose}: {error.strerror}; "
            "choose another with --run-dir DIR or MESH_RUN_DIR"
        )

    def _take_lock(self) -> int:
        path = self.path / "lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._not_writable(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise RunDirectoryError(
                f"a mesh already runs in {self.path} (meshctl, pid {pid}); "
                f"stop it with: kill {pid}, or choose another directory with --run-dir DIR"
            ) from None
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        return lock
