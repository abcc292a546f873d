"""
Folders and files of YAML, watched: what is saved is in force a moment later.

What stands on the disk is never trusted to be complete or good.  Three things can go wrong, and
none of them takes anything away from the mesh:

* A file has an error.  Its last good version stays in force, also when the control plane starts
  again over the broken file: the texts in force are kept in `accepted_dir`.
* A file or folder cannot be read, or a folder that was given has vanished (an unmounted disk, a
  checkout in progress).  What was known of it stays in force, and it is read again until it works.
* A save is caught half done.  Many editors empty a file before they write it, some delete it
  first.  So a look at the disk that would take a resource away is believed only when a second
  look, `SETTLE` later, still says the same.

Only a file that is really gone from a folder that is really there takes its resources along.

Nor is it trusted to mean well, for who may write one file shall not keep others from theirs: what
is no text, would never end, lies too deep or is too much together is not read, and said so.

Every event makes one full look at the disk, so it matters neither which event came nor whether
one was missed; a file whose text is unchanged is not parsed again.
"""

import asyncio
import contextlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import watchfiles
from watchfiles._rust_notify import WatchfilesRustInternalError

from control_plane import placement
from control_plane.placement import Placements
from control_plane.resources.collection import Choice, File, choose, examine, state_of
from control_plane.resources.document import MAX_BYTES
from control_plane.resources.finding import Finding
from control_plane.store import State, Store
from meshproxy.contract.wire import ContractError

_log = logging.getLogger(__name__)

DEBOUNCE = 50
"""Milliseconds for which one save's events are gathered."""
STEP = 10
"""Milliseconds without an event after which they are handed over."""
LOOK = 500
"""Milliseconds between looks at what inotify cannot tell: folders that vanished and came back."""

SETTLE = 100
"""Milliseconds after which what seems to be gone is looked for once more."""

SUFFIXES = (".yaml", ".yml")

MAX_TOTAL = 64 * 1024 * 1024
"""Bytes of all files together; of more, the largest are not read."""
MAX_FOLDERS = 32
"""Folders within folders, below one that was given."""


class Disk(msgspec.Struct, frozen=True):
    """
    One look at the disk.

    Attributes:
        texts: What could be read.
        unknown: What could not, and why: neither there nor gone.
    """

    texts: dict[Path, str]
    unknown: dict[Path, Finding]

    def covers(self, path: Path) -> bool:
        """Say whether `path` would have been seen if it were there."""
        return not any(path == lost or lost in path.parents for lost in self.unknown)


class FilesSource:
    """Keeps a store equal to what files say."""

    def __init__(
        self,
        paths: list[Path],
        store: Store,
        accepted_dir: Path,
        placements: Path | None = None,
    ) -> None:
        self._paths = list(paths)
        self._store = store
        self._archive = Archive(accepted_dir)
        self._placements_path = placements
        self._placements = Placements()
        # What is in force, and the newest version of each file on the disk, which may be broken.
        self._accepted: dict[Path, File] | None = None
        self._newest: dict[Path, File] = {}
        self._unknown = False
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<FilesSource {[str(path) for path in self._paths]} [{len(self._newest)} files]>"

    def load(self) -> None:
        """Read everything once and put it in force."""
        self._store.replace(self._judge(look(self._paths)))

    async def run(self) -> None:
        """Follow the disk until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(folders=True))
            tasks.create_task(self._watch(folders=False))

    # Watching ------------------------------------------------------------------------------------

    async def _watch(self, *, folders: bool) -> None:
        """
        Watch the folders with all below them, or the folders around single files.

        A file is watched through its folder because a save by renaming replaces the file, and
        a watch on the old one would hear nothing more.
        """
        before: dict[Path, tuple[int, int]] | None = None
        while before is None or self._wanted(folders=folders):
            targets = self._targets(folders=folders)
            if targets != before:
                await self._refresh()
                before = targets
            if targets:
                try:
                    await self._follow(targets, recursive=folders)
                except* FileNotFoundError:
                    pass
                except* (OSError, WatchfilesRustInternalError) as failed:
                    # Too many folders for inotify, or a name that is no text.
                    _log.warning("files are not watched, but looked at: %s", failed.exceptions[0])
                    before = None
                    await asyncio.sleep(LOOK / 1000)
            else:
                await asyncio.sleep(LOOK / 1000)

    async def _follow(self, targets: dict[Path, tuple[int, int]], *, recursive: bool) -> None:
        """Refresh at every event, until a watched folder is another one than before."""
        unheard = True  # what changed between the last look and the start of the watch
        async for changes in watchfiles.awatch(
            *targets,
            watch_filter=self._concerns,
            debounce=DEBOUNCE,
            step=STEP,
            rust_timeout=LOOK,
            yield_on_timeout=True,
            recursive=recursive,
            ignore_permission_denied=True,
        ):
            if changes or unheard or self._unknown:
                await self._refresh()
                unheard = False
            if self._targets(folders=recursive) != targets:
                return

    def _wanted(self, *, folders: bool) -> set[Path]:
        """Return the folders to watch, whether or not they exist."""
        if folders:
            return {path for path in self._paths if not _is_file(path)}
        wanted = {path.parent for path in self._paths if _is_file(path)}
        if self._placements_path is not None:
            wanted.add(self._placements_path.parent)
        return wanted

    def _targets(self, *, folders: bool) -> dict[Path, tuple[int, int]]:
        """Return those that exist, and which folder each of them is (device, inode)."""
        found: dict[Path, tuple[int, int]] = {}
        for path in sorted(self._wanted(folders=folders)):
            with contextlib.suppress(OSError):
                status = path.stat()
                found[path] = (status.st_dev, status.st_ino)
        return found

    def _concerns(self, _: watchfiles.Change, name: str) -> bool:
        """Say whether an event can mean a new look: logs and editors write into our folders too."""
        path = Path(name)
        if path.name.startswith(".."):  # Kubernetes swaps a volume's ..data link
            return True
        files = [*self._paths, *([self._placements_path] if self._placements_path else [])]
        if any(path == file.absolute() for file in files):
            return True
        for root in self._paths:
            if path.is_relative_to(root.absolute()):
                below = path.relative_to(root.absolute()).parts
                hidden = any(part.startswith(".") for part in below)
                # What is no file may be a folder with files, now or before.
                return not hidden and (path.suffix in SUFFIXES or not path.is_file())
        return False

    async def _refresh(self) -> None:
        async with self._turn:
            doubts: dict[Path, str | None] = {}
            while True:
                disk = await asyncio.to_thread(look, self._paths)
                before, doubts = doubts, await asyncio.to_thread(self._doubts, disk)
                if doubts == before:
                    break
                await asyncio.sleep(SETTLE / 1000)
            if self._store.replace(await asyncio.to_thread(self._judge, disk)):
                _log.info("revision %d: %r", self._store.state.revision, self._store)

    # Judging -------------------------------------------------------------------------------------

    def _doubts(self, disk: Disk) -> dict[Path, str | None]:
        """Return the files that would take resources away, with their text or None."""
        doubts: dict[Path, str | None] = {}
        for path, file in (self._accepted or {}).items():
            text = disk.texts.get(path)
            if text is None:
                if disk.covers(path):
                    doubts[path] = None
            elif text != file.text:
                new = self._version(path, text)
                left = {source.key for source in new.sources}
                if not new.findings and any(source.key not in left for source in file.sources):
                    doubts[path] = text
        return doubts

    def _version(self, path: Path, text: str) -> File:
        """Return a file as examined, anew only if its text is new."""
        for known in (self._newest.get(path), (self._accepted or {}).get(path)):
            if known is not None and known.text == text:
                return known
        return examine(text, path)

    def _judge(self, disk: Disk) -> State:
        """Return the state that results from what stands on the disk."""
        self._unknown = bool(disk.unknown)
        if self._accepted is None:
            self._accepted = self._archive.read(self._paths)
        accepted = self._accepted
        newest = {path: self._version(path, text) for path, text in disk.texts.items()}
        for path, file in (accepted | self._newest).items():
            if path not in newest and not disk.covers(path):
                newest[path] = file
        # A file that is gone has no say any more in which of two owned a resource first.
        accepted = {path: file for path, file in accepted.items() if path in newest}
        choice = choose(newest, accepted)
        self._archive.write(choice.in_force, self._accepted)
        self._newest, self._accepted = newest, choice.in_force
        findings = [*disk.unknown.values(), *self._read_placements(), *choice.findings]
        return state_of(Choice(choice.in_force, tuple(findings)), self._placements)

    def _read_placements(self) -> Iterator[Finding]:
        """A file that vanished is not an empty mesh: what was known of it stays."""
        if self._placements_path is None or not self._placements_path.exists():
            return
        try:
            self._placements = placement.read(self._placements_path)
        except ContractError as error:
            yield Finding(
                file=str(self._placements_path), field=error.path, message=error.reason
            )  # fmt: skip
        except OSError as error:
            yield _unreadable(self._placements_path, error)


# Reading ------------------------------------------------------------------------------------------


def look(paths: list[Path]) -> Disk:
    """Read all files that `paths` name, and those below the folders that they name."""
    texts: dict[Path, str] = {}
    unknown: dict[Path, Finding] = {}
    left = MAX_TOTAL
    for path, is_given in sorted(_found(paths, unknown).items(), key=lambda one: _size(one[0])):
        try:
            data = _read(path)
            if len(data) > left:
                raise ValueError(f"all files together are larger than {MAX_TOTAL // 2**20} MiB")
            left -= len(data)
            texts[path] = data.decode("utf-8-sig")
        except FileNotFoundError as error:
            # Gone since the folder was listed, or a link that leads nowhere yet.
            if is_given or path.is_symlink():
                unknown[path] = _unreadable(path, error)
        except (OSError, ValueError) as error:
            unknown[path] = _unreadable(path, error)
    return Disk(texts, unknown)


def _found(paths: list[Path], unknown: dict[Path, Finding]) -> dict[Path, bool]:
    """Return the files to read, and of each whether it was given by its own name."""
    return {path: path == root for root in paths for path in _files(root, unknown)}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # what is wrong with it, reading it will say


def _files(root: Path, unknown: dict[Path, Finding]) -> Iterator[Path]:
    """Yield the YAML files below `root`, or `root`; hidden names belong to editors and tools."""
    if _is_file(root):
        if not root.parent.is_dir():
            unknown[root] = _unreadable(root.parent, FileNotFoundError(2, "No such file"))
        elif root.exists() or root.is_symlink():
            yield root
        return
    # Not `os.walk`, which calls itself for each level (Python 3.11): 1,000 of them end a process.
    folders = [(root, 0)]
    while folders:
        folder, depth = folders.pop()
        below: list[tuple[Path, int]] = []
        for entry in _listed(folder, root, unknown):
            path = folder / entry.name
            if not _is_text(entry.name):
                unknown[path] = _unreadable(path, ValueError("has a name that is not UTF-8"))
            elif not _is_folder(entry):
                yield path
            elif depth == MAX_FOLDERS:
                why = ValueError(f"lies deeper than {MAX_FOLDERS} folders")
                unknown[path] = _unreadable(path, why)
            else:
                below.append((path, depth + 1))
        folders.extend(reversed(below))


def _listed(folder: Path, root: Path, unknown: dict[Path, Finding]) -> list[os.DirEntry[str]]:
    """Return the files and folders in a folder that may concern us, by name."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if folder == root or not isinstance(error, FileNotFoundError):
            unknown[folder] = _unreadable(folder, error)
        return []
    return [
        entry
        for entry in found
        if not entry.name.startswith(".")
        # A link to a folder may lead anywhere, and round in a circle.
        and (not entry.is_symlink() if _is_folder(entry) else entry.name.endswith(SUFFIXES))
    ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; what is wrong with it, reading it will say
        return False


def _is_text(name: str) -> bool:
    """File names are bytes; those that are no text could be neither kept nor told."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_file(path: Path) -> bool:
    """A path that was given with a suffix of ours is a file, also while there is none."""
    return path.is_file() or (path.suffix in SUFFIXES and not path.is_dir())


def _read(path: Path) -> bytes:
    # A pipe, and some files of the kernel's, would have us wait for ever: already when opened.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("is not a regular file")
        data: bytes | None = file.read(MAX_BYTES + 1)
    if data is None:
        raise ValueError("is a regular file in name only: its content is yet to come")
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES // 2**20} MiB; split it")
    return data


def _unreadable(path: Path, error: Exception) -> Finding:
    if isinstance(error, UnicodeDecodeError):
        message = f"is not UTF-8 text (byte {error.start})"
    elif isinstance(error, OSError):
        message = f"cannot be read: {error.strerror}"
    else:
        message = str(error)
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    return Finding(file=shown, message=f"{message}; what was known of it stays in force")


# Remembering --------------------------------------------------------------------------------------


class Kept(msgspec.Struct, frozen=True):
    """A file's text in force, as it is kept."""

    path: str
    text: str


class Archive:
    """The texts in force, one file each, readable by their owner only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, roots: list[Path]) -> dict[Path, File]:
        """Return what was in force below `roots` when a control plane last ran here."""
        files: dict[Path, File] = {}
        if not self._folder.is_dir():
            return files
        for place in sorted(self._folder.glob("*.json")):
            try:
                kept = msgspec.json.decode(place.read_bytes(), type=Kept)
            except (OSError, msgspec.DecodeError) as error:
                _log.warning("%s: not used: %s", place, error)
                continue
            path = Path(kept.path)
            file = examine(kept.text, path)
            # Another version of this program may have been less strict.
            if not file.findings and any(root == path or root in path.parents for root in roots):
                files[path] = file
        return files

    def write(self, new: dict[Path, File], old: dict[Path, File]) -> None:
        """
        Keep `new`, of which `old` is kept already.

        A full disk costs the memory of this version, not the version itself.
        """
        try:
            for path, file in new.items():
                if path not in old or old[path].text != file.text:
                    self._keep(path, file.text)
            for path in old.keys() - new.keys():
                self._place(path).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s: what is in force could not be kept: %s", self._folder, error)

    def _keep(self, path: Path, text: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600; renamed into place, it is whole or not there.
        handle, name = tempfile.mkstemp(dir=self._folder)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(Kept(str(path), text)))
        Path(name).replace(self._place(path))

    def _place(self, path: Path) -> Path:
        return self._folder / f"{sha256(os.fsencode(path)).hexdigest()[:32]}.json"
