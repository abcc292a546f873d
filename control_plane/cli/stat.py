"""
`meshctl stat`: traffic per edge, as the sidecars count it.

OK is the share of answers that are not 5xx.  IDENTITY is what the caller proved by mutual TLS where
the requests arrived, a dash means that nothing was proved; of requests that never arrived it says
why.  Latency is measured by the sidecar of the destination.

Opaque connections have a table of their own, where there are any: how many are open, how many ended
(OK: not broken by the service or the mesh), and bytes from the client (IN) and to it (OUT).
"""

import argparse
import time
from typing import Any

from control_plane.cli import connections, traffic
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
from control_plane.cli.output import fitted, percent, redrawing, show, terminal_width
from control_plane.cli.scrape import scrape

HEADERS = ("SOURCE", "DESTINATION", "VERSION", "REQ/S", "OK", "P50 MS", "P99 MS", "IDENTITY")
TCP_HEADERS = (
    "CONNECTIONS FROM", "DESTINATION", "OPEN", "ENDED/S", "OK", "IN B/S", "OUT B/S", "IDENTITY",
)  # fmt: skip
WINDOW = 2.0


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "stat",
        help="traffic per edge: rate, success, latency, proved identity",
        description="Look at the counters of all sidecars twice and show what flowed in between: "
        "requests, and connections of other protocols.",
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
        streams = tcp_records(connections.edges(flowed, tally.standing), ended - began)
        text = render_all(rows, streams, terminal_width())
        if not arguments.watch:
            show([*rows, *streams], arguments.output, text)
            return OK
        with redrawing():
            show([*rows, *streams], arguments.output, text)
        began = ended


def records(edges: dict[traffic.Edge, traffic.Traffic], seconds: float) -> list[dict[str, Any]]:
    """Return one record for each edge: rates, shares in percent, times in milliseconds."""
    return [
        {
            "kind": "requests",
            "source": edge.source,
            "destination": edge.destination,
            "version": edge.version,
            "requests_per_second": round(flowed.requests / seconds, 1),
            "success_percent": _rounded(flowed.success, 100, 2),
            "p50_ms": _rounded(flowed.quantile(0.5), 1000, 1),
            "p99_ms": _rounded(flowed.quantile(0.99), 1000, 1),
            "identity": edge.identity,
            "refusals": dict(sorted(flowed.refusals.items())),
        }
        for edge, flowed in edges.items()
    ]


def tcp_records(
    edges: dict[traffic.Edge, connections.Connections], seconds: float
) -> list[dict[str, Any]]:
    """Return one record for each edge with opaque connections: rates, and how many are open now."""
    return [
        {
            "kind": "connections",
            "source": edge.source,
            "destination": edge.destination,
            "open": int(flowed.open),
            "ended_per_second": round(flowed.ended / seconds, 1),
            "success_percent": _rounded(flowed.success, 100, 2),
            "received_bytes_per_second": round(flowed.received / seconds),
            "sent_bytes_per_second": round(flowed.sent / seconds),
            "identity": edge.identity,
            "failures": flowed.failures,
        }
        for edge, flowed in edges.items()
    ]


def render_all(
    rows: list[dict[str, Any]], streams: list[dict[str, Any]], width: int | None = None
) -> str:
    """Return the tables of which there is something to show."""
    if not streams:
        return render(rows, width)
    texts = [render(rows, width)] if rows else []
    return "\n\n".join([*texts, render_tcp(streams, width)])


def render(rows: list[dict[str, Any]], width: int | None = None) -> str:
    """
    Return the records as a table.

    On a terminal, of which many have 80 columns, the namespace `default` is left out: it need not
    be typed either.
    """
    if not rows:
        return "no traffic in this window"

    shown = [
        (
            _named(row["source"], width),
            _named(row["destination"], width),
            row["version"],
            row["requests_per_second"],
            _percent(row["success_percent"]),
            row["p50_ms"],
            row["p99_ms"],
            row["identity"] or ", ".join(row["refusals"]),
        )
        for row in rows
    ]
    return fitted(HEADERS, shown, width)


def render_tcp(streams: list[dict[str, Any]], width: int | None = None) -> str:
    """Return the records of opaque connections as a table."""
    shown = [
        (
            _named(row["source"], width),
            _named(row["destination"], width),
            row["open"],
            row["ended_per_second"],
            _percent(row["success_percent"]),
            row["received_bytes_per_second"],
            row["sent_bytes_per_second"],
            row["identity"] or ", ".join(row["failures"]),
        )
        for row in streams
    ]
    return fitted(TCP_HEADERS, shown, width)


def _named(name: str, width: int | None) -> str:
    return name if width is None else name.removeprefix("default/")


def _percent(share: float | None) -> str | None:
    return None if share is None else percent(share / 100)


def _admins(client: Client) -> list[str]:
    return [proxy["admin"] for proxy in client.get("/api/v1/proxies") if proxy.get("admin")]


def _rounded(value: float | None, factor: float, digits: int) -> float | None:
    return None if value is None else round(value * factor, digits)
