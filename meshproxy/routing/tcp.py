"""
Where a connection goes that is not HTTP: by the name in its TLS ClientHello, then by weight.

The most specific name decides, as the Gateway API has it for TLSRoute hostnames: a name spelled
out before a wildcard, a longer wildcard before a shorter one, and a rule without names after all
that have one.  Among equals the first rule of the spec wins.  ``*.example.com`` stands for every
name below ``example.com``, however deep, and not for ``example.com`` itself.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

from meshproxy.contract.resources import TcpBackendSpec, TcpRouteSpec, TcpRuleSpec
from meshproxy.contract.wire import ContractError
from meshproxy.policies.authorization import Authorization

from .split import Backend, Split

C = TypeVar("C")

_WILDCARD = "*."


class TcpRule(Generic[C]):
    """
    What happens to connections of some names.

    Attributes:
        name: Where the rule comes from; a metric label.
        split: None when the rule has no backend at all.
    """

    __slots__ = ("name", "split")

    def __init__(self, spec: TcpRuleSpec, clusters: Mapping[str, C], where: str) -> None:
        self.name = spec.name
        weighted = [
            (_backend(backend, clusters, f"{where}.backends[{index}]"), backend.weight)
            for index, backend in enumerate(spec.backends)
        ]
        self.split = Split(weighted) if weighted else None

    def __repr__(self) -> str:
        return f"<TcpRule {self.name}>"


def _backend(spec: TcpBackendSpec, clusters: Mapping[str, C], where: str) -> Backend[C]:
    if spec.cluster is None:
        return Backend(None)
    if spec.cluster not in clusters:
        raise ContractError(f"{where}.cluster", f"there is no cluster named {spec.cluster!r}")
    return Backend(clusters[spec.cluster])


class TcpRoute(Generic[C]):
    """
    The rules of one service port, or of one inbound port.

    Attributes:
        domains: Authorities by which a CONNECT asks for it.
        authorization: Who may connect; None where nobody has said.
        by_name: At least one rule asks for names: the first bytes must be seen before any is
            chosen.
    """

    __slots__ = ("_below", "_exact", "_nameless", "authorization", "by_name", "domains", "name")

    def __init__(self, spec: TcpRouteSpec, clusters: Mapping[str, C]) -> None:
        """
        Raises:
            ContractError: See `compile_tcp_route`.
        """
        self.name = spec.name
        self.domains = spec.domains
        self.authorization = (
            Authorization(spec.authorization, "authorization") if spec.authorization else None
        )
        self._exact: dict[str, TcpRule[C]] = {}
        self._below: dict[str, TcpRule[C]] = {}  # by what follows the asterisk: ".example.com"
        self._nameless: TcpRule[C] | None = None
        for index, rule_spec in enumerate(spec.rules):
            where = f"rules[{index}]"
            rule = TcpRule(rule_spec, clusters, where)
            for place, name in enumerate(rule_spec.server_names):
                wild = name.startswith(_WILDCARD)
                base = name.removeprefix(_WILDCARD)
                if not base or "*" in base or base != base.lower():
                    raise ContractError(
                        f"{where}.server_names[{place}]",
                        f"expected a name in lower case or '*.' and a name, got {name!r}",
                    )
                if wild:
                    self._below.setdefault(f".{base}", rule)
                else:
                    self._exact.setdefault(base, rule)
            if not rule_spec.server_names and self._nameless is None:
                self._nameless = rule
        self.by_name = bool(self._exact or self._below)

    def __repr__(self) -> str:
        return f"<TcpRoute {self.name}>"

    def find(self, server_name: str | None) -> TcpRule[C] | None:
        """
        Return the rule of a connection, or None when none takes it.

        Args:
            server_name: From its ClientHello, in lower case; None where there is none.
        """
        if server_name is not None and self.by_name:
            rule = self._exact.get(server_name)
            if rule is not None:
                return rule
            dot = server_name.find(".")
            while dot >= 0:  # from the longest ending to the shortest
                rule = self._below.get(server_name[dot:])
                if rule is not None:
                    return rule
                dot = server_name.find(".", dot + 1)
        return self._nameless


def compile_tcp_route(spec: TcpRouteSpec, clusters: Mapping[str, C]) -> TcpRoute[C]:
    """
    Compile a route and all its rules.

    Raises:
        ContractError: A cluster does not exist, or a server name is none; the path says where
            (``rules[2].backends[0].cluster``), or a policy is wrong.
    """
    return TcpRoute(spec, clusters)
