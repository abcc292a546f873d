"""
A mesh to ask questions of: the one that files describe, or the one that runs.

Both give the same two things: who is who, and for each workload the snapshot that its sidecar obeys.
What is answered from these cannot differ from what a proxy does, as long as the proxy's own code
reads them.  What it takes to read files is loaded only when there are any: commands start in a blink.
"""

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from control_plane.cli.client import Client, NotFoundError
from control_plane.cli.errors import USAGE, CommandError
from control_plane.cli.names import NEAR, qualified
from control_plane.outline import Behind, Outline
from control_plane.placement import Placement, Placements
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec

if TYPE_CHECKING:
    from control_plane.resources.collection import Choice
    from control_plane.store import State


@dataclass(frozen=True)
class Mesh:
    """
    Attributes:
        outline: Who is who.
        snapshot: What the sidecar of a workload (``namespace/name``) obeys.
    """

    outline: Outline
    snapshot: Callable[[str], Snapshot]

    def workload(self, typed: str) -> str:
        """
        Return the workload that was meant.

        Raises:
            CommandError: None was; names the nearest.
        """
        name = qualified(typed)
        if name in self.outline.identities:
            return name
        raise unknown("workload", typed, self.outline.identities)

    def servers(self, typed: str) -> tuple[Behind, ...]:
        """
        Return what ``SERVICE[:port]`` or ``WORKLOAD[:port]`` means: ports of workloads.

        Raises:
            CommandError: There is none of that name or port; names the nearest.
        """
        name, colon, number = qualified(typed).partition(":")
        if colon and not number.isdigit():
            raise CommandError(f"{typed!r}: {number!r} is no port", USAGE)
        services = self.outline.services
        known = [key for key in services if key.rpartition(":")[0] == name]
        if known:
            key = f"{name}:{number}" if colon else known[0]
            if key not in services:
                raise CommandError(
                    f"service {name} has no port {number}, expected {_ports(known)}", USAGE
                )
            if not colon and len(known) > 1:
                raise CommandError(
                    f"service {name} has several ports, say which: {', '.join(known)}", USAGE
                )
            if not services[key]:
                raise CommandError(f"no workload is behind service {key}", USAGE)
            return services[key]
        if name not in self.outline.identities:
            names = {key.rpartition(":")[0] for key in services} | {*self.outline.identities}
            raise unknown("service or workload", typed, names)
        ports = self.outline.ports[name]
        if colon and int(number) not in ports:
            raise CommandError(
                f"workload {name} has no port {number}, expected {', '.join(map(str, ports))}",
                USAGE,
            )
        return tuple(Behind(name, port) for port in ([int(number)] if colon else ports))

    def place(self, key: str, rule: str | None = None) -> str:
        """Return ``file:line`` of a resource, or of one rule of an AuthorizationPolicy."""
        where = self.outline.locations.get(key)
        if where is None:
            return ""
        line = where.line
        if rule is not None:
            line = _line_of_rule(Path(where.file), key, where.line, rule) or line
        return f"{where.file}:{line}"


def of_files(paths: Sequence[Path]) -> Mesh:
    """
    Return the mesh that files describe.

    What is wrong in them must be mended first: a file with an error is not in force.

    Raises:
        CommandError: There are errors, or there is no workload.
    """
    from control_plane.generate.snapshot import generate
    from control_plane.outline import outline
    from control_plane.resources.collection import choose, examine
    from control_plane.sources.files import look

    disk = look(list(paths))
    choice = choose({path: examine(text, path) for path, text in disk.texts.items()}, {})
    errors = (*disk.unknown.values(), *choice.findings)
    if errors:
        raise CommandError("\n".join(["these files are not valid:", *map(str, errors)]), USAGE)
    state = _placed(choice)
    trust = TrustSpec(trust_domain="-", roots=())
    return Mesh(outline(state), lambda workload: generate(state, workload, trust))


def running(client: Client) -> Mesh:
    """Return the mesh of a control plane."""

    def snapshot(workload: str) -> Snapshot:
        return wire.convert(client.get(f"/api/v1/proxies/{workload}/snapshot"), Snapshot)

    try:
        return Mesh(wire.convert(client.get("/api/v1/outline"), Outline), snapshot)
    except NotFoundError:
        raise CommandError(
            "the control plane is older than this command; ask files instead, with -f PATH"
        ) from None


def unknown(what: str, typed: str, known: Collection[str]) -> CommandError:
    """Return the error for a name of which there is nothing."""
    short = {one.removeprefix("default/"): one for one in known}
    near = difflib.get_close_matches(typed.removeprefix("default/"), short, n=1, cutoff=NEAR)
    if near:
        return CommandError(f"there is no {what} {typed!r}; did you mean {near[0]}?", USAGE)
    listed = ", ".join(sorted(short)) or "none at all"
    return CommandError(f"there is no {what} {typed!r}; there are {listed}", USAGE)


def _placed(choice: "Choice") -> "State":
    """Return a state in which every workload is somewhere: on its own ports, under its own name."""
    from control_plane.resources.collection import state_of

    state = state_of(choice, Placements())
    placements = {
        name: Placement(
            address=name,
            app_ports={port.port: port.port for port in workload.spec.ports},
            inbound_ports={port.port: port.port for port in workload.spec.ports},
        )
        for name, workload in state.workloads.items()
    }
    return state_of(choice, Placements(workloads=placements))


def _ports(keys: Sequence[str]) -> str:
    return ", ".join(key.rpartition(":")[2] for key in keys)


def _line_of_rule(file: Path, key: str, line: int, rule: str) -> int | None:
    """Return the line of a rule, where the file can be read and has not moved on."""
    from control_plane.resources import document
    from control_plane.resources.collection import examine
    from control_plane.resources.security import AuthorizationPolicy

    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    for source in examine(text, file).sources:
        policy = source.resource
        if source.key != key or source.line != line:
            continue
        if not isinstance(policy, AuthorizationPolicy):
            continue
        for number, one in enumerate(policy.spec.rules):
            if rule == (one.name or str(number)):
                return document.line_of(source.node, ("spec", "rules", number))
    return None
