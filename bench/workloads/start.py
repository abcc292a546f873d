"""From the start of A's program to the first 200 through it and a B that is there already."""

import time

from bench.site import answers

from . import Figures, Metric, Turn, Workload


def _start(turn: Turn) -> Figures:
    site, peer = turn.site, turn.running.peer
    services = site.with_new_entries(list(turn.running.services.values()))
    web = next(one for one in services if one.name == "web")
    name = site.unique(peer.name)
    folder = site.subfolder(name)
    began = time.perf_counter()
    process = peer.start(site, "a", services, folder, name)
    try:
        process.until("a request is answered through it", lambda: answers(web))
        took = time.perf_counter() - began
    finally:
        site.processes.end([process])
    return {"ms": took * 1000}


WORKLOADS = (
    Workload(
        "start",
        "start",
        "start of A to the first 200 through the pair",
        (Metric("ms", "ms"),),
        _start,
        own=True,
    ),
)
