"""
`meshctl proxies`: who runs which configuration.

SYNCED: it obeys the newest.  STALE: the newest is on its way.  REFUSED: it would not take the
newest, says why, and goes on with the one before.  DISCONNECTED: it is not there; if it lives, it
serves with what it has.
"""

import argparse
import time
from typing import Any

from control_plane.cli.arguments import (
    Verbs,
    add_context,
    add_output,
    add_watch,
    client_of,
)
from control_plane.cli.errors import OK
from control_plane.cli.output import age, redrawing, show, table, terminal_width

HEADERS = (
    "PROXY", "STATE", "SENT", "ACKNOWLEDGED", "LAST ACK", "CERTIFICATE", "BUILD", "ADMIN",
    "IDENTITY", "REASON",
)  # fmt: skip
EVERY = 2.0


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "proxies",
        help="who runs which configuration",
        description="List the proxies: SYNCED, STALE (the newest configuration is on its way), "
        "REFUSED (with the reason), DISCONNECTED.",
    )
    add_context(parser)
    add_output(parser)
    add_watch(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the proxies, once or again and again."""
    client = client_of(arguments)
    while True:
        proxies = client.get("/api/v1/proxies")
        if not arguments.watch:
            show(proxies, arguments.output, render(proxies, time.time(), terminal_width()))
            return OK
        with redrawing():
            show(proxies, arguments.output, render(proxies, time.time(), terminal_width()))
        time.sleep(EVERY)


def render(proxies: list[dict[str, Any]], now: float, width: int | None = None) -> str:
    """Return the proxies as a table."""
    rows = [
        (
            proxy["workload"],
            proxy["state"],
            proxy.get("sent_version"),
            proxy.get("acked_version"),
            age(proxy.get("last_ack_age_seconds")),
            _life(proxy.get("certificate_not_after"), now),
            proxy.get("build"),
            proxy.get("admin"),
            proxy.get("identity"),
            ": ".join(filter(None, (proxy.get("path"), proxy.get("reason")))),
        )
        for proxy in proxies
    ]
    return table(HEADERS, rows, width=width)


def _life(not_after: float | None, now: float) -> str:
    if not_after is None:
        return "-"
    return age(not_after - now) if not_after > now else "EXPIRED"
