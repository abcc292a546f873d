"""
New mutual TLS handshakes at B: a full one each, both certificates verified, nothing resumed.

The load is a client with A's certificate, not A: pairs differ in how often they shake hands at all
(one connection for everything, or one for each TCP connection), which `tcp-connect` shows.
"""

from bench.clients import ours

from . import Figures, Metric, Turn, Workload

AT_A_TIME = 16


def _shake(turn: Turn) -> Figures:
    web, site = turn.running.services["web"], turn.site
    before = turn.running.cpu_by_side()[1]
    seen = ours(
        "handshakes",
        web.between,
        site.a.certificate,
        site.a.key,
        site.root,
        turn.running.peer.alpn,
        AT_A_TIME,
        turn.seconds,
        seconds=turn.seconds,
    )
    spent = turn.running.cpu_by_side()[1] - before
    return {
        "cpu_us": spent / 1000 / seen["handshakes"],
        "rate": seen["handshakes"] / seen["seconds"],
    }


WORKLOADS = (
    Workload(
        "handshake",
        "handshake",
        f"new full mTLS handshakes at B, {AT_A_TIME} at a time",
        (
            Metric("cpu_us", "CPU us/handshake, B"),
            Metric("rate", "handshakes/s (client-bound)", better="more"),
        ),
        _shake,
    ),
)
