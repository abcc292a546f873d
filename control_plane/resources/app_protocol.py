"""
What the `appProtocol` of a Service port says about the bytes behind it.

Nobody need say anything: the first bytes of a connection decide (`detect`).  Where somebody has,
it wins over guessing.  The *name* of a port never counts: a rule that turns a rename into an outage
is the commonest complaint about the meshes that have it.

Known are Kubernetes' own values (KEP-3726), IANA names of what is often seen, and what users of
Istio and Linkerd write.  Any other value is somebody else's word: it changes nothing.
"""

from collections.abc import Iterable

from meshproxy.contract.resources import Protocol

from .model import ServicePort

PRIOR_KNOWLEDGE = frozenset({"kubernetes.io/h2c", "h2c", "http2", "grpc"})
"""HTTP/2 in plaintext, without asking first."""

HTTP = PRIOR_KNOWLEDGE | {"http", "grpc-web", "kubernetes.io/ws", "ws"}

TCP = frozenset(
    {
        "tcp",
        # TLS of the app's own is not for us to look into, whatever is inside.
        "tls",
        "https",
        "kubernetes.io/wss",
        "wss",
        "linkerd.io/opaque",
        "linkerd.io/tcp",
        "amqp",
        "amqps",
        "mongo",
        "mongodb",
        "mysql",
        "postgres",
        "postgresql",
        "redis",
        "smtp",
    }
)


def protocol_of(port: ServicePort) -> Protocol:
    """Return what clients of a service port speak, as far as its `appProtocol` says."""
    said = (port.app_protocol or "").lower()
    if said in HTTP:
        return "http"
    return "tcp" if said in TCP else "detect"


def agreed(ports: Iterable[ServicePort]) -> Protocol:
    """Return what all of these that say something say; `detect` where they differ, or say nothing."""
    said = {protocol_of(port) for port in ports} - {"detect"}
    return said.pop() if len(said) == 1 else "detect"


def is_prior_knowledge(port: ServicePort) -> bool:
    """Say whether the port is spoken to in HTTP/2 from the first byte on."""
    return (port.app_protocol or "").lower() in PRIOR_KNOWLEDGE
