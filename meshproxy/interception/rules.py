"""
The rules of transparent capture, as text for `iptables-restore`: pure, golden-tested.

A connection meets the nat table with its first packet only, and in one of two places:

    an app calls           OUTPUT ─▶ MESH_OUTBOUND ─▶ MESH_REDIRECT   to port 15001, on loopback
    somebody calls an app  PREROUTING ─▶ MESH_INBOUND                 to port 15006

REDIRECT changes the destination to this machine and a port; what the destination had been is kept
by the kernel, and the sidecar asks for it (`SO_ORIGINAL_DST`).

The sidecar's own connections are known by the user it runs as, and are let through: otherwise each
would come back to it, for ever.  With one exception, where the sidecar chose its own pod to answer
a call of its own app: that must arrive as if a stranger made it, through inbound.

Our chains are named in the text, which empties those that are there, so that the same text makes
the same rules whatever an earlier run had made.  Rules of others are not touched.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network
Range = tuple[int, int]
"""Of ports or of user and group numbers; the first and the last one."""

OUTBOUND, INBOUND, REDIRECT = CHAINS = ("MESH_OUTBOUND", "MESH_INBOUND", "MESH_REDIRECT")

HEALTH_PORTS: tuple[Range, ...] = ((15000, 15000), (15020, 15020))
"""
Administration and health of the sidecar itself: never captured inbound.

Who asks for these (a kubelet, Prometheus) has no certificate, and wants the sidecar, not the app.
"""

PROXY_UID = 1337
"""The user that sidecars run as, in Istio and here."""


@dataclass(frozen=True)
class Family:
    """
    Attributes:
        program: Whose rules these are; ``-save`` and ``-restore`` are appended to it.
        loopback: All addresses that never leave the machine.
    """

    name: str
    version: int
    program: str
    loopback: str


IPV4 = Family("IPv4", 4, "iptables", "127.0.0.0/8")
IPV6 = Family("IPv6", 6, "ip6tables", "::1/128")


@dataclass(frozen=True)
class Capture:
    """
    What is captured, and what is not.

    Attributes:
        proxy_uids: Users that the sidecar runs as.
        include_outbound_cidrs: If there are any, only calls to these are captured.
    """

    outbound_port: int = 15001
    inbound_port: int = 15006
    proxy_uids: tuple[int, ...] = (PROXY_UID,)
    exclude_inbound_ports: tuple[Range, ...] = ()
    exclude_outbound_ports: tuple[Range, ...] = ()
    exclude_outbound_cidrs: tuple[Network, ...] = ()
    include_outbound_cidrs: tuple[Network, ...] = ()
    exclude_uids: tuple[Range, ...] = ()
    exclude_gids: tuple[Range, ...] = ()


# To capture ---------------------------------------------------------------------------------------


def captured(family: Family, capture: Capture, saved: str = "") -> str:
    """
    Return what makes these rules, and no others of ours, out of the rules that `saved` lists.

    Args:
        family: Whose addresses to write.
        capture: What is captured.
        saved: The nat table as `iptables-save` prints it; of ours, the ways in are looked for.
    """
    return _restorable(
        "# Our chains; naming one here empties it.",
        *(f":{chain} - [0:0]" for chain in CHAINS),
        *_outbound(family, capture),
        *_inbound(capture),
        "",
        "# The ways in: first in line, so that no other rule leads round the sidecar.",
        *(f"-D {jump}" for jump in _ways_in(saved)),
        f"-I OUTPUT 1 -p tcp -j {OUTBOUND}",
        # What only passes through this machine is no call to the app.
        f"-I PREROUTING 1 -p tcp -m addrtype --dst-type LOCAL -j {INBOUND}",
    )


def _outbound(family: Family, capture: Capture) -> Iterator[str]:
    loopback = family.loopback
    yield ""
    yield "# The sidecar calls its own pod for its app, not over the loopback: as if from outside."
    for uid in capture.proxy_uids:
        yield _append(
            OUTBOUND,
            f"! -s {loopback} ! -d {loopback} -o lo -m owner --uid-owner {uid} -j {INBOUND}",
        )
    yield "# All else that the sidecar sends goes where it goes; captured, it would never leave."
    for uid in capture.proxy_uids:
        yield _append(OUTBOUND, f"-m owner --uid-owner {uid} -j RETURN")
    yield "# What the app says to itself, by whatever address, is no business of the mesh."
    yield _append(OUTBOUND, "-o lo -j RETURN")
    exclusions = [
        *(f"-m owner --uid-owner {_range(uids, '-')}" for uids in capture.exclude_uids),
        *(f"-m owner --gid-owner {_range(gids, '-')}" for gids in capture.exclude_gids),
        *(f"-p tcp --dport {_range(ports, ':')}" for ports in capture.exclude_outbound_ports),
        *(f"-d {network}" for network in _of(family, capture.exclude_outbound_cidrs)),
    ]
    if exclusions:
        yield "# What is excluded by user, group, port or address."
        yield from (_append(OUTBOUND, f"{exclusion} -j RETURN") for exclusion in exclusions)
    if capture.include_outbound_cidrs:
        yield "# Calls to these are captured, no others."
        for network in _of(family, capture.include_outbound_cidrs):
            yield _append(OUTBOUND, f"-d {network} -j {REDIRECT}")
    else:
        yield "# Everything else is captured."
        yield _append(OUTBOUND, f"-j {REDIRECT}")
    yield _append(REDIRECT, f"-p tcp -j REDIRECT --to-ports {capture.outbound_port}")


def _inbound(capture: Capture) -> Iterator[str]:
    yield ""
    yield "# The sidecar's own administration and health, and what is excluded."
    for ports in (*HEALTH_PORTS, *capture.exclude_inbound_ports):
        yield _append(INBOUND, f"-p tcp --dport {_range(ports, ':')} -j RETURN")
    yield "# Everything else is captured."
    yield _append(INBOUND, f"-p tcp -j REDIRECT --to-ports {capture.inbound_port}")


def _append(chain: str, rule: str) -> str:
    return f"-A {chain} {rule}"


def _range(ends: Range, to: str) -> str:
    first, last = ends
    return str(first) if first == last else f"{first}{to}{last}"


def _of(family: Family, networks: Iterable[Network]) -> Iterator[Network]:
    return (network for network in networks if network.version == family.version)


# To let go ----------------------------------------------------------------------------------------


def released(saved: str) -> str | None:
    """Return what takes away all rules of ours that `saved` lists; None when there are none."""
    chains = [chain for chain in CHAINS if f"\n:{chain} " in saved]
    if not chains:
        return None
    return _restorable(
        *(f"-D {jump}" for jump in _ways_in(saved)),
        *(f"-F {chain}" for chain in chains),
        *(f"-X {chain}" for chain in chains),
    )


_WAY_IN = re.compile(rf"^-A ((?P<chain>\S+) .*-[jg] (?:{'|'.join(CHAINS)}))$", re.MULTILINE)


def _ways_in(saved: str) -> Iterator[str]:
    """Yield the rules outside our chains that lead into one of them, as `-D` takes them."""
    for found in _WAY_IN.finditer(saved):
        if found["chain"] not in CHAINS:
            yield found[1]


def _restorable(*lines: str) -> str:
    return "\n".join(["*nat", *lines, "COMMIT", ""])
