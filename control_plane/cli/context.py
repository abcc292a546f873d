"""
Which mesh a command speaks to.

`meshctl up` leaves a context file in its run directory.  The other verbs take the first of

    --context FILE
    $MESHCTL_CONTEXT
    $MESH_RUN_DIR/context.json
    .mesh/context.json, in the current directory or one above it
    ~/.config/meshproxy/context.json
"""

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from control_plane.cli.errors import USAGE, CommandError
from meshproxy.contract import wire

IN_RUN_DIRECTORY = "context.json"
IN_FOLDER = Path(".mesh", IN_RUN_DIRECTORY)
OF_USER = Path(".config", "meshproxy", IN_RUN_DIRECTORY)


class Context(Struct, frozen=True, kw_only=True):
    """
    How to reach a control plane.

    Attributes:
        api: ``http://address:port``, or ``https://`` with `roots` and `identity`.
        token_file: The operator's token: with it everything is allowed.
        view_token_file: The viewer's token, for questions; without it the operator's asks, too.
        certificate: PEM file of key and certificate to show instead of tokens (https).
        roots: PEM file of the roots that vouch for the control plane (https).
        identity: SPIFFE ID that the control plane must prove (https).
        run_dir: Run directory of a local mesh.
        pid: The `meshctl up` that runs it.
    """

    api: str
    token_file: str | None = None
    view_token_file: str | None = None
    certificate: str | None = None
    roots: str | None = None
    identity: str | None = None
    run_dir: str | None = None
    pid: int | None = None


def find(option: str | None, environment: Mapping[str, str], folder: Path, home: Path) -> Context:
    """
    Return the context that a command should use.

    Raises:
        CommandError: There is none, or the file that was named cannot be read.
    """
    named = option or environment.get("MESHCTL_CONTEXT")
    if named:
        return read(Path(named))
    for path in _candidates(environment, folder, home):
        if path.is_file():
            return read(path)
    raise CommandError(
        "no mesh found: start one with `meshctl up -f PATH` or `meshctl demo`, "
        "or say where it is with --context FILE or MESHCTL_CONTEXT",
        USAGE,
    )


def option(
    context: Path, environment: Mapping[str, str], folder: Path, home: Path
) -> tuple[str, ...]:
    """Return the words with which a command finds this context; none where it does by itself."""
    named = environment.get("MESHCTL_CONTEXT")
    nearest = next(filter(Path.is_file, _candidates(environment, folder, home)), None)
    found = Path(named) if named else nearest
    if found is not None and found.absolute() == context.absolute():
        return ()
    return ("--context", str(context))


def read(path: Path) -> Context:
    """
    Read a context file.

    Raises:
        CommandError: It cannot be read, or is not a context.
    """
    try:
        context = wire.decode(path.read_bytes(), Context)
        mode = stat.S_IMODE(path.stat().st_mode)
    except PermissionError as error:
        why = f"{error.strerror}; a mesh that was started with sudo is asked with sudo"
        raise CommandError(f"cannot read the context {path}: {why}", USAGE) from None
    except OSError as error:
        raise CommandError(f"cannot read the context {path}: {error.strerror}", USAGE) from None
    except wire.ContractError as error:
        raise CommandError(f"{path} is not a context file: {error}", USAGE) from None
    if mode & 0o022:
        why = f"has mode {mode:04o}: others could have tokens sent to themselves; chmod 0600 it"
        raise CommandError(f"the context {path} {why}", USAGE)
    if not context.api.startswith("https://"):
        return context
    for field in ("roots", "identity"):
        if getattr(context, field) is None:
            why = f"{field} is missing, and api is https: whom to believe must be known"
            raise CommandError(f"{path} is not a context file: {why}", USAGE)
    return context


def _candidates(environment: Mapping[str, str], folder: Path, home: Path) -> Iterator[Path]:
    if run_directory := environment.get("MESH_RUN_DIR"):
        yield Path(run_directory, IN_RUN_DIRECTORY)
    for here in (folder, *folder.parents):
        yield here / IN_FOLDER
    yield home / OF_USER
