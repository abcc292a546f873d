"""
`meshproxy intercept`: capture the traffic of this network namespace, or let it go.

Each family is changed in one `iptables-restore`, which the kernel takes as a whole or not at all:
there is no moment in which half of the rules are in force.  Connections that are open stay as they
are; rules decide about new ones.
"""

import argparse
import ipaddress
import sys

from meshproxy.interception import tables
from meshproxy.interception.rules import (
    IPV4,
    IPV6,
    Capture,
    Family,
    Network,
    Range,
    captured,
    released,
)
from meshproxy.interception.tables import Tables, TablesError

LARGEST_ID = 2**32 - 2  # the last number, -1, means "no user"


def main(arguments: list[str]) -> int:
    """Do what the command line says; return 0, or 1 if it did not work; exits with 2 on misuse."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.outbound_port == options.inbound_port:
        parser.error("--outbound-port and --inbound-port must differ")
    capture = _capture(options)
    if options.dry_run:
        for family in (IPV4,) if options.no_ipv6 else (IPV4, IPV6):
            print(f"# {family.program}-restore --noflush")
            print(_whole_release(family, capture) if options.remove else captured(family, capture))
        return 0
    try:
        _change(options, capture)
    except TablesError as error:
        print(f"meshproxy intercept: {error}", file=sys.stderr)
        return 1
    return 0


def _change(options: argparse.Namespace, capture: Capture) -> None:
    interception = Interception(None if options.backend == "auto" else options.backend)
    if not tables.is_allowed():
        raise TablesError("changing rules needs root, or CAP_NET_ADMIN in this namespace")
    # IPv6 first: it is the one that more often cannot be had, and then nothing has changed.
    if options.remove or options.no_ipv6:
        interception.release(IPV6, optional=True)
    else:
        interception.capture(IPV6, capture, required=options.require_ipv6)
    if options.remove:
        interception.release(IPV4, optional=False)
    else:
        interception.capture(IPV4, capture, required=True)


def _whole_release(family: Family, capture: Capture) -> str:
    """Return what takes everything away, as `iptables-save` would list it after a capture."""
    text = captured(family, capture).replace("-I OUTPUT 1", "-A OUTPUT")
    return released(text.replace("-I PREROUTING 1", "-A PREROUTING")) or ""


class Interception:
    """Changes the rules of this network namespace, and says what it did."""

    def __init__(self, backend: tables.Backend | None) -> None:
        self._backend = backend

    def capture(self, family: Family, capture: Capture, *, required: bool) -> None:
        """
        Bring the rules of one family into force.

        Without IPv6 addresses nothing can be said in IPv6, so that its rules may be missing unless
        they are required.  With some, rules that cannot be made are an error: the app's traffic
        would leave the machine beside the mesh, in the clear.

        Raises:
            TablesError: The rules cannot be made.
        """
        try:
            chosen = tables.choose(family, self._backend)
            chosen.restore(captured(family, capture, chosen.saved()))
        except TablesError as error:
            if required or tables.speaks_ipv6():
                hint = (
                    ""
                    if family is IPV4
                    else "\nThis machine has IPv6 addresses; --no-ipv6 leaves their traffic alone."
                )
                raise TablesError(f"{family.name} is not captured: {error}{hint}") from None
            print(f"{family.name}: not captured, and there are no addresses to capture: {error}")
            return
        for other in tables.others(chosen):
            self._clear(other)
        print(f"{family.name}: captured ({chosen.program}, {chosen.backend})")

    def release(self, family: Family, *, optional: bool) -> None:
        """
        Take the rules of one family away, wherever they are.

        Raises:
            TablesError: They are there and cannot be taken away.
        """
        try:
            chosen = tables.choose(family, self._backend)
        except TablesError as error:
            if not optional:
                raise
            print(f"{family.name}: nothing to remove: {error}")
            return
        cleared = [self._clear(one) for one in (chosen, *tables.others(chosen))]
        print(f"{family.name}: {'not captured any more' if any(cleared) else 'was not captured'}")

    def _clear(self, where: Tables) -> bool:
        text = released(where.saved())
        if text is not None:
            where.restore(text)
        return text is not None


# The command line ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="meshproxy intercept",
        description="Write the iptables rules that lead the TCP connections of this network "
        "namespace, out of the app and into it, through the sidecar. Running it again replaces "
        "the rules of the time before.",
    )
    add = parser.add_argument
    add("--remove", action="store_true", help="take the rules away: traffic flows as without us")
    add("--dry-run", action="store_true", help="print what iptables-restore would be given")
    add(
        "--outbound-port", type=_port, default=Capture.outbound_port, metavar="PORT",
        help="where the sidecar listens for its app (default: %(default)s)",
    )  # fmt: skip
    add(
        "--inbound-port", type=_port, default=Capture.inbound_port, metavar="PORT",
        help="where the sidecar listens for its app's callers (default: %(default)s)",
    )  # fmt: skip
    add(
        "--proxy-uid", type=_uids, action="extend", default=[], metavar="UID[,UID…]",
        help="the users that the sidecar runs as, whose traffic is not captured (default: 1337)",
    )  # fmt: skip
    ports, networks = "PORT[,FIRST-LAST…]", "CIDR[,CIDR…]"
    for option, kind, metavar, text in (
        ("--exclude-inbound-ports", _ports, ports, "callers reach these directly, as 15000 and 15020"),
        ("--exclude-outbound-ports", _ports, ports, "the app calls these directly"),
        ("--exclude-outbound-cidrs", _networks, networks, "the app calls these directly"),
        ("--include-outbound-cidrs", _networks, networks, "only calls to these are captured"),
        ("--exclude-uids", _ids, "UID[,FIRST-LAST…]", "these users call directly"),
        ("--exclude-gids", _ids, "GID[,FIRST-LAST…]", "these groups call directly"),
    ):  # fmt: skip
        add(option, type=kind, action="extend", default=[], metavar=metavar, help=text)
    families = parser.add_mutually_exclusive_group()
    families.add_argument("--no-ipv6", action="store_true", help="do not capture IPv6")
    families.add_argument(
        "--require-ipv6", action="store_true", help="fail where IPv6 cannot be captured"
    )
    add(
        "--backend", choices=("auto", "nft", "legacy"), default="auto",
        help="which iptables (default: plain `iptables`, or whichever works)",
    )  # fmt: skip
    return parser


def _capture(options: argparse.Namespace) -> Capture:
    return Capture(
        outbound_port=options.outbound_port,
        inbound_port=options.inbound_port,
        proxy_uids=tuple(dict.fromkeys(options.proxy_uid)) or Capture.proxy_uids,
        exclude_inbound_ports=tuple(options.exclude_inbound_ports),
        exclude_outbound_ports=tuple(options.exclude_outbound_ports),
        exclude_outbound_cidrs=tuple(options.exclude_outbound_cidrs),
        include_outbound_cidrs=tuple(options.include_outbound_cidrs),
        exclude_uids=tuple(options.exclude_uids),
        exclude_gids=tuple(options.exclude_gids),
    )


def _port(text: str) -> int:
    return _single(_range(text, 1, 65535))


def _ports(text: str) -> list[Range]:
    return [_range(word, 1, 65535) for word in _words(text)]


def _uids(text: str) -> list[int]:
    return [_single(ids) for ids in _ids(text)]


def _ids(text: str) -> list[Range]:
    return [_range(word, 0, LARGEST_ID) for word in _words(text)]


def _networks(text: str) -> list[Network]:
    found: list[Network] = []
    for word in _words(text):
        try:
            found.append(ipaddress.ip_network(word))
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"{error}; expected an address or a network, such as 10.0.0.0/8 or fd00::/8"
            ) from None
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _range(text: str, least: int, most: int) -> Range:
    ends = text.replace(":", "-").split("-")
    if len(ends) <= 2 and all(end.isascii() and end.isdigit() and len(end) <= 10 for end in ends):
        first, last = int(ends[0]), int(ends[-1])
        if least <= first <= last <= most:
            return first, last
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither a number from {least} to {most} nor a range of such, as in 8000-8010"
    )


def _single(ends: Range) -> int:
    if ends[0] != ends[1]:
        raise argparse.ArgumentTypeError(f"{ends[0]}-{ends[1]}: expected one number, not a range")
    return ends[0]
