"""
A proxy's own certificate and the roots that it trusts, for `meshctl config PROXY certs`.

The proxy itself knows best, and is asked where it can be reached (its admin pages answer on its own
machine only).  Otherwise the control plane tells what it knows: until when the certificate is
good that the proxy last showed, and the roots that it was given.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from control_plane import placement
from control_plane.cli.client import Client, UnreachableError, request
from control_plane.cli.output import NOTHING, age, moment, table
from meshproxy.contract.resources import Snapshot

Facts = dict[str, Any]


def known(client: Client, name: str, snapshot: Snapshot) -> Facts:
    """
    Return what is known of the certificates of a proxy, as its page ``/certs`` says it.

    Args:
        client: Of the control plane.
        name: ``namespace/name``.
        snapshot: What the proxy has been told.
    """
    try:
        proxies = {proxy["workload"]: proxy for proxy in client.get("/api/v1/proxies")}
    except UnreachableError:
        proxies = {}
    proxy = proxies.get(name, {})
    admin = proxy.get("admin") or _placed(client, name)
    facts = _of_the_proxy(admin) if admin is not None else None
    # The address is of the proxy's machine; on ours, another proxy may have the same.
    if facts is not None and proxy.get("identity") in (None, "", facts["identity"]):
        return {"source": "proxy", **facts}
    return {
        "source": "control plane",
        "identity": proxy.get("identity") or None,
        "certificate": {"not_after": proxy["certificate_not_after"]}
        if proxy.get("certificate_not_after")
        else None,
        "roots": list(_roots(snapshot)),
    }


def render(facts: Facts, now: float, width: int | None) -> str:
    """Return the facts as two tables: the certificate, the roots."""
    certificate = facts["certificate"] or {}
    own = (
        certificate.get("identity") or facts["identity"],
        _time(certificate.get("not_before")),
        _time(certificate.get("not_after")),
        _left(certificate.get("not_after"), now),
        certificate.get("issuer"),
        certificate.get("serial"),
    )
    roots = [
        (root["subject"], _time(root["not_after"]), _left(root["not_after"], now), root["sha256"])
        for root in facts["roots"]
    ]
    headers = ("CERTIFICATE", "NOT BEFORE", "NOT AFTER", "LEFT", "ISSUER", "SERIAL")
    tables = [
        table(headers, [own], width=width),
        table(("TRUSTED ROOT", "NOT AFTER", "LEFT", "SHA-256"), roots, width=width),
    ]
    if facts["source"] != "proxy":
        tables.append("the proxy cannot be reached from here: this is the control plane's word")
    elif facts.get("last_error"):
        tables.append(f"not renewed: {facts['last_error']}")
    return "\n\n".join(tables)


def _of_the_proxy(admin: str) -> Facts | None:
    try:
        status, body = request(admin, "GET", "/certs", timeout=2.0)
        facts = json.loads(body) if status == 200 else None
    except (UnreachableError, ValueError):
        return None
    return facts if isinstance(facts, dict) and "roots" in facts else None


def _placed(client: Client, name: str) -> str | None:
    if client.context.run_dir is None:
        return None
    places = placement.read(Path(client.context.run_dir, "placements.json")).workloads
    return f"{places[name].address}:{places[name].admin_port}" if name in places else None


def _roots(snapshot: Snapshot) -> Iterable[Mapping[str, Any]]:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    for one in snapshot.trust:
        for root in x509.load_pem_x509_certificates("\n".join(one.roots).encode()):
            yield {
                "subject": root.subject.rfc4514_string(),
                "serial": f"{root.serial_number:x}",
                "sha256": root.fingerprint(SHA256()).hex(),
                "not_before": root.not_valid_before_utc.timestamp(),
                "not_after": root.not_valid_after_utc.timestamp(),
            }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else moment(seconds)


def _left(not_after: float | None, now: float) -> str:
    if not_after is None:
        return NOTHING
    return age(not_after - now) if not_after > now else "EXPIRED"
