"""
What each proxy was sent, has acknowledged, and has refused.

    DISCONNECTED ──hello──▶ SYNCED ◀──ack── STALE ──nack──▶ REFUSED
                               └────update────▶ ▲ ◀────update────┘

SYNCED: the proxy has in force what it should have.  STALE: an update is under way or due.
REFUSED: the proxy has said no, and goes on with the version before; the reason is kept.
Pure: time is an argument.
"""

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Raw

from meshproxy.contract import wire
from meshproxy.contract.discovery import Change, Hello, Nack, Removal
from meshproxy.contract.resources import KINDS, SECTIONS, Kind, Snapshot, name_of

Versions = dict[Kind, dict[str, str]]


LONGEST = 2_000
"""Characters that are kept, shown and logged of what a proxy says of itself: it may say megabytes."""


class State(StrEnum):
    SYNCED = "SYNCED"
    STALE = "STALE"
    REFUSED = "REFUSED"
    DISCONNECTED = "DISCONNECTED"


@dataclass(slots=True)
class Proxy:
    """
    What is known of one proxy.  Times are in seconds since the epoch.

    Attributes:
        reason: Why it is in its state, in one sentence; empty when all is well.
        path: Of what was refused: resource and field.
        trust: Version of the trust bundle that it has acknowledged; empty for none.
        certificate_issuer: Name of the key that signed the certificate it has shown.
    """

    workload: str
    identity: str = ""
    state: State = State.DISCONNECTED
    reason: str = ""
    path: str = ""
    sent_version: str = ""
    acked_version: str = ""
    build: str = ""
    admin: str | None = None
    connected_since: float | None = None
    last_ack: float | None = None
    certificate_not_after: float | None = None
    certificate_issuer: str = ""
    certificate_serial: str = ""
    trust: str = ""

    def on_hello(self, hello: Hello, identity: str, not_after: float, now: float) -> None:
        self.identity = identity
        self.state = State.STALE
        self.reason = self.path = ""
        self.sent_version = self.acked_version = hello.version[:LONGEST]
        self.build = hello.build[:LONGEST]
        self.admin = hello.admin and hello.admin[:LONGEST]
        self.connected_since = now
        self.certificate_not_after = not_after

    def on_update(self, version: str) -> None:
        self.sent_version = version
        self.state = State.STALE
        self.reason = self.path = ""

    def on_synced(self, version: str, now: float) -> None:
        self.sent_version = self.acked_version = version
        self.last_ack = now
        self.state = State.SYNCED
        self.reason = self.path = ""

    def on_nack(self, nack: Nack) -> None:
        self.state = State.REFUSED
        self.reason = nack.reason[:LONGEST]
        self.path = nack.path[:LONGEST]

    def on_disconnect(self, reason: str) -> None:
        self.state = State.DISCONNECTED
        self.reason = reason
        self.connected_since = None


def versions_of(snapshot: Snapshot) -> Versions:
    """Return the version of each resource, by kind and name."""
    return {
        kind: {name_of(r): wire.resource_version(r) for r in getattr(snapshot, section)}
        for kind, section in SECTIONS.items()
    }


def delta(held: Versions, snapshot: Snapshot) -> tuple[tuple[Change, ...], tuple[Removal, ...]]:
    """Return what to say to a proxy that holds `held` so that it comes to hold `snapshot`."""
    changed = []
    removed = []
    # Make before break: what is referred to comes first, what goes goes last.
    for kind in KINDS:
        have = held.get(kind, {})
        wanted: set[str] = set()
        for resource in getattr(snapshot, SECTIONS[kind]):
            name = name_of(resource)
            wanted.add(name)
            spec = wire.encode(resource)
            version = wire.digest(spec)
            if have.get(name) != version:
                changed.append(Change(kind=kind, name=name, version=version, spec=Raw(spec)))
        removed += [Removal(kind=kind, name=name) for name in sorted(have.keys() - wanted)]
    return tuple(changed), tuple(reversed(removed))
