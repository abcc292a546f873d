"""Fetch the metrics of many sidecars at once."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from control_plane.cli.client import UnreachableError, request
from control_plane.cli.traffic import Counters, parse

AT_ONCE = 8
TIMEOUT = 2.0


def scrape(admins: Iterable[str]) -> dict[str, Counters]:
    """
    Return the counters of each sidecar, by the address of its admin port.

    One that gives no answer is left out: it may be restarting, and the next look will tell.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(_one, dict.fromkeys(admins))
        return {admin: counters for admin, counters in found if counters is not None}


def _one(admin: str) -> tuple[str, Counters | None]:
    try:
        status, body = request(admin, "GET", "/metrics", timeout=TIMEOUT)
    except UnreachableError:
        return admin, None
    return admin, parse(body.decode()) if status == 200 else None
