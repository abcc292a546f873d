"""What types cannot say about a PeerAuthentication."""

import re
from typing import Final

from .finding import Path
from .route import Problems
from .security import PeerAuthentication
from .selector import problems_of_selector

_NUMBER: Final = re.compile("[1-9][0-9]{0,4}")


def problems_of_policy(policy: PeerAuthentication) -> Problems:
    """Yield what is wrong with a policy, whatever it selects."""
    spec = policy.spec
    yield from problems_of_selector(spec.selector)
    path: Path = ("spec", "portLevelMtls")
    for port in spec.port_level_mtls:
        if not (_NUMBER.fullmatch(port) and int(port) <= 65535):
            yield (*path, port), f'"{port}" is no port, expected 1 to 65535'
    if spec.port_level_mtls and spec.selector is None:
        # Istio ignores it there, which nobody notices.
        yield path, "needs a selector: ports are those of certain workloads"
    if spec.mtls is None and not spec.port_level_mtls:
        yield ("spec",), "says nothing, expected mtls or portLevelMtls"
