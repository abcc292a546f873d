"""
Resident memory of a pair of its own: fresh, after load, and with 2,000 clients that are idle.

Each of the clients has had a request answered, so its connection is an idle keep-alive one.
"""

import socket
from contextlib import ExitStack

from bench.clients import LoadError, wrk
from bench.peers import start_pair
from bench.site import Service

from . import Figures, Metric, Turn, Workload

IDLE, LOADING = 2000, 32


def _held(turn: Turn) -> Figures:
    running = start_pair(turn.running.peer, turn.site, turn.site.unique(turn.running.peer.name))
    try:
        web = running.services["web"]
        fresh = running.memory()
        wrk.load(web.url(100), web.host, LOADING, turn.seconds)
        loaded = running.memory()
        with ExitStack() as clients:
            for _ in range(IDLE):
                clients.enter_context(_client(web))
            idle = running.memory()
    finally:
        turn.site.processes.end(running.processes)
    return {
        "fresh_mb": fresh.rss,
        "private_mb": fresh.private,
        "loaded_mb": loaded.rss,
        "idle_mb": idle.rss,
        "idle_kb_each": (idle.rss - loaded.rss) * 1024 / IDLE,
    }


def _client(service: Service) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", service.entry), timeout=10)
    sock.sendall(f"GET {service.path(100)} HTTP/1.1\r\nHost: {service.host}\r\n\r\n".encode())
    said = sock.recv(65536)
    if b" 200 " not in said[:20]:
        raise LoadError(f"expected 200, got {said[:40]!r}")
    return sock


WORKLOADS = (
    Workload(
        "memory",
        "memory",
        "memory, A and B together",
        (
            Metric("fresh_mb", "RSS fresh, MB"),
            Metric("private_mb", "of it private, MB"),
            Metric("loaded_mb", "RSS after load, MB"),
            Metric("idle_mb", f"RSS with {IDLE} idle clients, MB"),
            Metric("idle_kb_each", "KB for each of these", 1),
        ),
        _held,
        needs=("wrk",),
        warm_up=False,
        own=True,
    ),
)
