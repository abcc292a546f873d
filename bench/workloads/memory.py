"""
Resident memory of pairs of its own: fresh, after load, and with many clients that do little.

    idle       each has had a request answered: an idle keep-alive connection at A
    request    each has begun a request that does not end: a connection at A, a stream between A and
               B, a connection of B to the app
    tunnel     each has an opaque connection on which nothing is said: one at A, a stream or a
               connection between A and B, one of B to the app

What is freed is used again, so that each of these has a pair that was only just started.  Only ours
has a control plane to be connected to here: `connected_mb` of the others is their fresh figure.
"""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from bench import mesh
from bench.clients import LoadError, wrk
from bench.cost import memory
from bench.origin import ECHO
from bench.peers import Running, start_pair
from bench.site import Service

from . import BARE, Figures, Metric, Turn, Workload

IDLE, OPEN = 2000, 900
"""Idle clients; requests and tunnels, which are below the usual limits of 1,024."""

LOADING, BULK = 32, 8
"""Connections of a load of small requests, and of bodies of 1 MiB."""

SIZE = 1024 * 1024


def _held(turn: Turn) -> Figures:
    figures = _of_fresh_pair(turn, _loaded)
    figures["connected_mb"] = figures["fresh_mb"]
    if turn.running.peer.name in ("ours", BARE):
        with mesh.running(turn.site) as sidecars:
            figures["connected_mb"] = sum(memory(pid).rss for pid in sidecars)
    for held in (
        partial(_with_clients, name="idle", service="web", dial=_ask, count=IDLE),
        partial(_with_clients, name="request", service="bulk", dial=_begin, count=OPEN),
        partial(_with_clients, name="tunnel", service="tcp", dial=_say_something, count=OPEN),
    ):
        figures |= _of_fresh_pair(turn, held)
    return figures


def _of_fresh_pair(turn: Turn, measure: Callable[[Running, float], Figures]) -> Figures:
    running = start_pair(turn.running.peer, turn.site, turn.site.unique(turn.running.peer.name))
    try:
        return measure(running, turn.seconds)
    finally:
        turn.site.processes.end(running.processes)


def _loaded(running: Running, seconds: float) -> Figures:
    web, bulk = running.services["web"], running.services["bulk"]
    fresh = running.memory()
    wrk.load(web.url(100), web.host, LOADING, seconds)
    loaded = running.memory()
    wrk.load(bulk.url(SIZE), bulk.host, BULK, seconds)
    wrk.load(bulk.url("upload"), bulk.host, BULK, seconds, SIZE)
    return {
        "fresh_mb": fresh.rss,
        "private_mb": fresh.private,
        "loaded_mb": loaded.rss,
        "bulk_mb": running.memory().rss,
    }


# Clients that do little ---------------------------------------------------------------------------

Dial = Callable[[Service], socket.socket]


def _with_clients(
    running: Running, _seconds: float, *, name: str, service: str, dial: Dial, count: int
) -> Figures:
    called = running.services[service]
    with ExitStack() as clients:
        for _ in range(LOADING):  # what the first ones need is not theirs
            clients.enter_context(dial(called))
        _ask(running.services["web"]).close()
        before = running.memory().rss
        for _ in range(count):
            clients.enter_context(dial(called))
        _ask(running.services["web"]).close()  # all that came before it has been looked at
        after = running.memory().rss
    return {f"{name}_mb": after, f"{name}_kb_each": (after - before) * 1024 / count}


def _ask(service: Service) -> socket.socket:
    sock = _connected(service)
    sock.sendall(f"GET {service.path(100)} HTTP/1.1\r\nHost: {service.host}\r\n\r\n".encode())
    said = sock.recv(65536)
    if b" 200 " not in said[:20]:
        raise LoadError(f"expected 200, got {said[:40]!r}")
    return sock


def _begin(service: Service) -> socket.socket:
    sock = _connected(service)
    sock.sendall(
        f"POST {service.path('upload')} HTTP/1.1\r\nHost: {service.host}\r\n"
        "Content-Length: 100\r\n\r\nand so on".encode()
    )
    return sock


def _say_something(service: Service) -> socket.socket:
    sock = _connected(service)
    sock.sendall(ECHO + b"hello")
    if not sock.recv(65536):
        raise LoadError("expected an echo, got an end")
    return sock


def _connected(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.entry), timeout=10)


WORKLOADS = (
    Workload(
        "memory",
        "memory",
        "memory, A and B together",
        (
            Metric("fresh_mb", "RSS fresh, MB"),
            Metric("private_mb", "of it private, MB"),
            Metric("connected_mb", "RSS fresh, discovery connected, metrics told, MB"),
            Metric("loaded_mb", "RSS after load, MB"),
            Metric("bulk_mb", f"RSS after {BULK} bulk flows, down and up, MB"),
            Metric("idle_mb", f"RSS with {IDLE} idle clients, MB"),
            Metric("idle_kb_each", "KB for each of these", 1),
            Metric("request_mb", f"RSS with {OPEN} open requests, MB"),
            Metric("request_kb_each", "KB for each of these", 1),
            Metric("tunnel_mb", f"RSS with {OPEN} silent TCP connections, MB"),
            Metric("tunnel_kb_each", "KB for each of these", 1),
        ),
        _held,
        needs=("wrk",),
        warm_up=False,
        own=True,
    ),
)
