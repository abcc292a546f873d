"""
`meshctl stat`: traffic per edge, as the sidecars count it.

SUCCESS is the share of answers that are not 5xx.  IDENTITY is what the caller proved by mutual
TLS where the requests arrived; a dash there means that nothing was proved, or that requests never
arrived.  Latency is measured by the sidecar of the destination.
"""

import argparse
import time
from typing import Any

from control_plane.cli import traffic
from control_plane.cli.arguments import (
    Verbs,
    add_context,
    add_output,
    add_watch,
    client_of,
    duration,
)
from control_plane.cli.client import Client
from control_plane.cli.errors import OK
from control_plane.cli.output import redrawing, show, table, terminal_width
from control_plane.cli.scrape import scrape

HEADERS = (
    "SOURCE", "DESTINATION", "VERSION", "REQUESTS/S", "SUCCESS %", "P50 MS", "P99 MS", "IDENTITY",
)  # fmt: skip
WINDOW = 2.0


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "stat",
        help="traffic per edge: rate, success, latency, proved identity",
        description="Look at the counters of all sidecars twice and show what flowed in between.",
    )
    parser.add_argument(
        "--window",
        metavar="DURATION",
        type=duration,
        default=WINDOW,
        help="time between the two looks (default: 2s)",
    )
    add_context(parser)
    add_output(parser)
    add_watch(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the traffic, once or again and again."""
    client = client_of(arguments)
    tally, began = traffic.Tally(), time.monotonic()
    tally.look(scrape(_admins(client)))
    while True:
        time.sleep(arguments.window)
        flowed, ended = tally.look(scrape(_admins(client))), time.monotonic()
        rows = records(traffic.edges(flowed), ended - began)
        if not arguments.watch:
            show(rows, arguments.output, render(rows, terminal_width()))
            return OK
        with redrawing():
            show(rows, arguments.output, render(rows, terminal_width()))
        began = ended


def records(edges: dict[traffic.Edge, traffic.Traffic], seconds: float) -> list[dict[str, Any]]:
    """Return one record for each edge: rates, shares in percent, times in milliseconds."""
    return [
        {
            "source": edge.source,
            "destination": edge.destination,
            "version": edge.version,
            "requests_per_second": round(flowed.requests / seconds, 1),
            "success_percent": _rounded(flowed.success, 100, 2),
            "p50_ms": _rounded(flowed.quantile(0.5), 1000, 1),
            "p99_ms": _rounded(flowed.quantile(0.99), 1000, 1),
            "identity": edge.identity,
        }
        for edge, flowed in edges.items()
    ]


def render(rows: list[dict[str, Any]], width: int | None = None) -> str:
    """Return the records as a table."""
    if not rows:
        return "no traffic in this window"
    return table(HEADERS, [tuple(row.values()) for row in rows], width=width)


def _admins(client: Client) -> list[str]:
    return [proxy["admin"] for proxy in client.get("/api/v1/proxies") if proxy.get("admin")]


def _rounded(value: float | None, factor: float, digits: int) -> float | None:
    return None if value is None else round(value * factor, digits)
