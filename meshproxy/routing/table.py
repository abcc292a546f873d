"""
The routing table: which virtual host an authority means, and which of its routes a request takes.

**The rule** is one sentence: of a virtual host's routes, the first that matches decides.  The
control plane has put them in the order of the Gateway API's precedence already.

**The index** makes the rule cheap.  A route that asks for an exact path is filed under that path;
one that asks for a prefix, under that prefix; so a request needs one look-up for its path and one
for each of its leading runs of segments (``/a/b/c`` → ``""``, ``/a``, ``/a/b``, ``/a/b/c``).  Only
routes with a regular expression for a path stay in a list that is walked.  Each pile keeps the
order of the spec, and the earliest match of any pile wins: 10,000 routes cost what 10 do, and the
answer is that of the plain walk, which `test_table.py` checks with random tables.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Generic, TypeVar

from meshproxy.contract.policies import RateLimitSpec
from meshproxy.contract.resources import (
    BackendSpec,
    HeaderModifierSpec,
    RouteSpec,
    VirtualHostSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead
from meshproxy.policies.authorization import Authorization
from meshproxy.policies.deadline import Overrides, seconds
from meshproxy.policies.fault_injection import FaultInjection
from meshproxy.policies.jwt import Jwt
from meshproxy.policies.load_balancing.session import Session
from meshproxy.policies.mirroring import Mirroring
from meshproxy.policies.rate_limit import Limit, RateLimit
from meshproxy.policies.retry import Retry

from .authority import normalized
from .match import Match
from .rewrite import HeaderModifier, Redirect, Rewrite
from .split import Backend, Split

C = TypeVar("C")

ANY_AUTHORITY: Final = "*"
_REMEMBERED: Final = 1024
_LONGEST_REMEMBERED: Final = 262  # a DNS name of 253 characters, its dot, a colon and a port


# Routes -------------------------------------------------------------------------------------------


class Route(Generic[C]):
    """
    What happens to a request that matches.

    Attributes:
        name: Where the rule comes from; a metric label.
        retry: None for the cluster's.
        session: None for the cluster's.
        split: None when the route redirects, or has no backend at all.
        timeouts: What it says in the place of its clusters; None where it says nothing.
        heavy: How many of the next requests are likely to have a large answer, as the last ones had.
        rate_limit: Those of its virtual host and its own; None without, like the next two.
    """

    __slots__ = (
        "edits", "faults", "heavy", "match", "mirroring", "name", "rate_limit", "redirect", "request_headers",
        "response_headers", "retry", "rewrite", "session", "split", "timeouts",
    )  # fmt: skip

    def __init__(
        self,
        spec: RouteSpec,
        clusters: Mapping[str, C],
        where: str = "",
        limits: "Limits | None" = None,
    ) -> None:
        """
        Args:
            spec: What was configured.
            clusters: By name.
            where: In the contract, for errors.
            limits: Knows the rate limits of the virtual host.

        Raises:
            ContractError: See `compile_virtual_host`.
        """
        self.name = spec.name
        self.heavy = 0
        self.match = Match(spec.match, f"{where}.match")
        prefix = self.match.prefix
        self.redirect = (
            None if spec.redirect is None else Redirect(spec.redirect, prefix, f"{where}.redirect")
        )
        self.rewrite = (
            None if spec.rewrite is None else Rewrite(spec.rewrite, prefix, f"{where}.rewrite")
        )
        self.request_headers = _modifier(spec.request_headers, f"{where}.request_headers")
        self.response_headers = _modifier(spec.response_headers, f"{where}.response_headers")
        self.edits = self.request_headers is not None or self.rewrite is not None
        self.retry = None if spec.retry is None else Retry(spec.retry, f"{where}.retry")
        self.session = None
        if spec.session is not None:
            path = (self.match.exact or self.match.prefix or b"") or b"/"
            self.session = Session(spec.session, path, f"{where}.session")
        weighted = [
            (_backend(backend, clusters, f"{where}.backends[{index}]"), backend.weight)
            for index, backend in enumerate(spec.backends)
        ]
        self.split = Split(weighted) if weighted and self.redirect is None else None
        self.timeouts = _timeouts(spec)
        self.rate_limit = (limits or Limits()).of(spec, where)
        self.faults = FaultInjection(spec.faults, f"{where}.faults") if spec.faults else None
        mirrors = [
            (_cluster(mirror.cluster, clusters, f"{where}.mirrors[{index}]"), mirror.percent)
            for index, mirror in enumerate(spec.mirrors)
        ]
        self.mirroring = Mirroring(mirrors) if mirrors else None

    def __repr__(self) -> str:
        return f"<Route {self.name}>"


def _modifier(spec: HeaderModifierSpec | None, where: str) -> HeaderModifier | None:
    return None if spec is None else HeaderModifier(spec, where)


def _timeouts(spec: RouteSpec) -> Overrides | None:
    request, attempt, retry = spec.request_timeout, spec.backend_request_timeout, spec.retry
    if request is None and attempt is None and retry is None:
        return None
    return Overrides(
        None if request is None else seconds(request),
        None if attempt is None else seconds(attempt),
        None if retry is None else seconds(retry.per_try_timeout),
    )


def _backend(spec: BackendSpec, clusters: Mapping[str, C], where: str) -> Backend[C]:
    return Backend(
        None if spec.cluster is None else _cluster(spec.cluster, clusters, where),
        _modifier(spec.request_headers, f"{where}.request_headers"),
        _modifier(spec.response_headers, f"{where}.response_headers"),
    )


def _cluster(name: str, clusters: Mapping[str, C], where: str) -> C:
    if name not in clusters:
        raise ContractError(f"{where}.cluster", f"there is no cluster named {name!r}")
    return clusters[name]


class Limits:
    """
    The rate limits of a virtual host and its routes.

    A rule with several matches is several routes with one name, and has its limits once.

    Attributes:
        known: By the rule's name (empty for the virtual host itself) and what was configured.
    """

    __slots__ = ("_before", "_parts", "_shared", "known")

    def __init__(
        self,
        shared: Iterable[RateLimitSpec] = (),
        before: "Limits | None" = None,
        parts: int = 1,
    ) -> None:
        """
        Args:
            shared: Of all routes of the virtual host.
            before: Those of its former configuration: what has not changed keeps its buckets.
            parts: Workers that share each limit.
        """
        self._before = {} if before is None else before.known
        self._parts = parts
        self.known: dict[tuple[str, RateLimitSpec], Limit] = {}
        self._shared = [
            self._limit("", spec, f"rate_limits[{index}]") for index, spec in enumerate(shared)
        ]

    def of(self, route: RouteSpec, where: str) -> RateLimit | None:
        """Return all that requests of a route are asked for, or None for nothing."""
        own = [
            self._limit(route.name, spec, f"{where}.rate_limits[{index}]")
            for index, spec in enumerate(route.rate_limits)
        ]
        return RateLimit((*self._shared, *own)) if own or self._shared else None

    def _limit(self, rule: str, spec: RateLimitSpec, where: str) -> Limit:
        key = (rule, spec)
        limit = self.known.get(key) or self._before.get(key)
        if limit is None:
            limit = Limit(spec, where, parts=self._parts)
        self.known[key] = limit
        return limit


# Virtual hosts ------------------------------------------------------------------------------------


class VirtualHost(Generic[C]):
    """
    The routes of one service port, indexed by path.

    Attributes:
        authorization: Who may ask what here; None where nobody has said.
        jwt: Whose tokens are believed; None where tokens mean nothing to us.
    """

    __slots__ = (
        "_anywhere", "_exact", "_fallback", "_lengths", "_longest_prefix", "_only", "_prefix",
        "_shortest_prefix", "_unfiled", "authorization", "domains", "jwt", "limits", "name",
        "routes",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        domains: tuple[str, ...],
        routes: tuple[Route[C], ...],
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.limits = limits
        self.authorization: Authorization | None = None
        self.jwt: Jwt | None = None
        self.domains = domains
        self.routes = routes
        self._exact: dict[bytes, list[tuple[int, Route[C]]]] = {}
        self._prefix: dict[bytes, list[tuple[int, Route[C]]]] = {}
        self._unfiled: list[tuple[int, Route[C]]] = []
        for place in enumerate(routes):
            match = place[1].match
            if match.exact is not None:
                self._exact.setdefault(match.exact, []).append(place)
            elif match.prefix is not None:
                self._prefix.setdefault(match.prefix, []).append(place)
            else:
                self._unfiled.append(place)
        # Prefixes of every path need no look-up: those with conditions, and the first without,
        # which is what to fall back to.
        self._anywhere: list[tuple[int, Route[C]]] = []
        self._fallback: tuple[int, Route[C]] | None = None
        for place in self._prefix.pop(b"", ()):
            if not place[1].match.conditions:
                self._fallback = place
                break
            self._anywhere.append(place)
        # A path is cut only where a prefix could end: the client chooses how many segments it
        # has, the configuration how many are looked at.
        self._lengths = frozenset(map(len, self._prefix))
        self._shortest_prefix = min(self._lengths, default=0)
        self._longest_prefix = max(self._lengths, default=0)
        # The commonest table of all: whatever comes takes the first route.
        first = routes[0] if routes else None
        takes_all = first is not None and first.match.prefix == b"" and not first.match.conditions
        self._only = first if takes_all else None

    def find(self, head: RequestHead) -> Route[C] | None:  # noqa: C901 - its parts would be calls
        """Return the first route, in the order of the spec, that matches."""
        if self._only is not None:
            return self._only
        path = head.path.partition(b"?")[0]
        found = self._fallback
        if self._exact and path in self._exact:
            found = _first(self._exact[path], head, found)
        if self._anywhere:
            found = _first(self._anywhere, head, found)
        prefixes = self._prefix
        if prefixes:
            lengths, end = self._lengths, self._longest_prefix + 1
            cut = path.find(b"/", self._shortest_prefix, end)
            while cut > 0:
                if cut in lengths:
                    places = prefixes.get(path[:cut])
                    if places is not None:
                        first = places[0]
                        if not first[1].match.conditions and (found is None or first[0] < found[0]):
                            found = first  # as nearly always: `_first`, without the call
                        else:
                            found = _first(places, head, found)
                cut = path.find(b"/", cut + 1, end)
            if len(path) in lengths and path in prefixes:
                found = _first(prefixes[path], head, found)
        if self._unfiled:
            found = _first(self._unfiled, head, found)
        return None if found is None else found[1]


def _first(
    places: list[tuple[int, Route[C]]],
    head: RequestHead,
    found: tuple[int, Route[C]] | None,
) -> tuple[int, Route[C]] | None:
    """Return the first of `places` that matches and stands before `found`; else `found`."""
    for place in places:
        if found is not None and place[0] > found[0]:
            return found
        match = place[1].match
        if not match.conditions or match.rest_holds(head):
            return place
    return found


def compile_virtual_host(
    spec: VirtualHostSpec,
    clusters: Mapping[str, C],
    before: VirtualHost[C] | None = None,
    workers: int = 1,
) -> VirtualHost[C]:
    """
    Compile a virtual host and all its routes.

    Args:
        spec: What was configured.
        clusters: By name.
        before: The one that had its name so far.
        workers: Processes that share its rate limits.

    Raises:
        ContractError: A path, regular expression, header, rewrite, policy or key is not valid, or a
            cluster does not exist; the path says where (``routes[2].match.path.value``).
    """
    limits = Limits(spec.rate_limits, None if before is None else before.limits, workers)
    routes = tuple(
        Route(route, clusters, f"routes[{index}]", limits)
        for index, route in enumerate(spec.routes)
    )
    host = VirtualHost(spec.name, spec.domains, routes, limits)
    if spec.authorization:
        host.authorization = Authorization(spec.authorization, "authorization")
    if spec.jwt:
        host.jwt = Jwt(spec.jwt, "jwt")
    return host


# Authorities --------------------------------------------------------------------------------------


class Authorities(Generic[C]):
    """Finds the virtual host that an authority (RFC 9110 section 7.2) means."""

    __slots__ = ("_any", "_by_authority", "_remembered")

    def __init__(self, virtual_hosts: Iterable[VirtualHost[C]]) -> None:
        """
        Raises:
            ContractError: A domain is not an authority, or two virtual hosts claim the same.
        """
        self._any: VirtualHost[C] | None = None
        self._by_authority: dict[bytes, VirtualHost[C]] = {}
        self._remembered: dict[bytes, VirtualHost[C] | None] = {}
        for host in virtual_hosts:
            for index, domain in enumerate(host.domains):
                where = f"virtual_host/{host.name} domains[{index}]"
                if domain == ANY_AUTHORITY:
                    claimed = self._any
                    self._any = host
                else:
                    authority = normalized(domain.encode())
                    if authority is None:
                        raise ContractError(where, f"expected host:port or '*', got {domain!r}")
                    claimed = self._by_authority.get(authority)
                    self._by_authority[authority] = host
                if claimed is not None and claimed is not host:
                    raise ContractError(
                        where, f"{domain!r} belongs to virtual_host/{claimed.name} already"
                    )

    def find(self, authority: bytes) -> VirtualHost[C] | None:
        """Return the virtual host of `authority`, as a client wrote it; None when there is none."""
        remembered = self._remembered
        if authority in remembered:
            return remembered[authority]
        name = normalized(authority)
        found = None if name is None else self._by_authority.get(name, self._any)
        # Clients choose what is remembered, so it is little and short; starting over now and
        # then costs less than keeping count of what was used last.
        if len(authority) <= _LONGEST_REMEMBERED:
            if len(remembered) >= _REMEMBERED:
                remembered.clear()
            remembered[authority] = found
        return found
