"""
Fault injection: trouble on purpose, to see whether callers can bear it.

Theory of operation
===================

A request may be *delayed*, as a slow dependency would, or *aborted*, as a broken one would, or both:
first the wait, then the error.

1) Of a route's faults the first that means a request decides (by its match, and by who calls).
2) Delay and abort are drawn independently: with 10 % of each, 1 % of requests have both.
3) **A delay is part of the request's time.**  The deadline runs meanwhile; where it is shorter, the
   caller sees the timeout that a slow dependency would have brought about.
4) An abort is answered here: the endpoint hears nothing of the request, so it may be repeated.
   Nor is it retried: whoever asks for errors shall get them.
5) What was done on purpose must not be taken for an accident: answers that were aborted carry the
   code `fault-injected` and the flag FI, delayed ones the flag DI; both are counted by the name of
   the fault.

gRPC callers get `abort_grpc_status`; without one, what gRPC's own libraries would make of the HTTP
status (grpc/doc/http-grpc-status-mapping.md).  A fault that has only a gRPC status aborts only calls.

Called from: `Exchange.on_request_head`.
Configured by: `contract.FaultSpec`.
"""

from collections.abc import Callable, Sequence
from typing import Final

from meshproxy.contract.policies import FaultSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead
from meshproxy.refusal import Refusal, refusal
from meshproxy.routing.match import IdentityMatch, Match

_GRPC_STATUSES: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_UNKNOWN: Final = 2


class Injected:
    """
    What is done to one request.

    Attributes:
        fault: Its name.
        delay: Seconds before it goes on; 0 for none.
        abort: What it is answered instead; None for nothing.
    """

    __slots__ = ("abort", "delay", "fault")

    def __init__(self, fault: str, delay: float, abort: Refusal | None) -> None:
        self.fault = fault
        self.delay = delay
        self.abort = abort


class Fault:
    """
    One fault, and which requests it means.

    Attributes:
        conditional: Not every request of the route is meant.
        likely: How probable it is, between 0 and 1, that a request that is meant is not spared.
    """

    __slots__ = (
        "_abort", "_abort_call", "_abort_share", "_delay", "_delay_share", "_match", "_source",
        "conditional", "likely", "name",
    )  # fmt: skip

    def __init__(self, spec: FaultSpec, where: str = "") -> None:
        """
        Raises:
            ContractError: It would do nothing, or its match is not valid.
        """
        self.name = spec.name
        self._match = Match(spec.match, f"{where}.match")
        self._source = IdentityMatch(spec.source)
        anything = self._match.prefix == b"" and not self._match.conditions
        self.conditional = not (anything and self._source.anybody)
        self._delay = spec.delay / 1000
        self._delay_share = spec.delay_percent / 100 if spec.delay else 0.0
        self._abort_share = spec.abort_percent / 100
        self._abort, self._abort_call = _aborts(spec)
        aborts = bool(self._abort or self._abort_call) and self._abort_share > 0
        self.likely = self._delay_share + (1 - self._delay_share) * self._abort_share * aborts
        if not aborts and not self._delay_share:
            raise ContractError(where, "neither delays nor aborts any request")

    def __repr__(self) -> str:
        return f"<Fault {self.name}>"

    def means(self, head: RequestHead, identity: str | None) -> bool:
        """Say whether this request is one of those that may go wrong."""
        return self._source.holds(identity) and self._match.holds(head)

    def draw(self, chance: float, random: Callable[[], float], *, call: bool) -> Injected | None:
        """
        Leave to chance what is done to a request that is meant; None for nothing.

        Args:
            chance: Between 0 and 1; decides whether anything is done at all, and on the delay.
            random: Between 0 and 1.
            call: It is one of gRPC.
        """
        if chance >= self.likely:
            return None
        delay = self._delay if chance < self._delay_share else 0.0
        abort = self._abort_call if call else self._abort
        # Without a delay it is the abort that `likely` is about.
        if delay and random() >= self._abort_share:
            abort = None
        if not delay and abort is None:
            return None
        return Injected(self.name, delay, abort)


def _aborts(spec: FaultSpec) -> tuple[Refusal | None, Refusal | None]:
    """Return what an HTTP request and what a gRPC call is answered."""
    plain, call = spec.abort_status, spec.abort_grpc_status
    if call is None and plain is not None:
        call = _GRPC_STATUSES.get(plain, _UNKNOWN)
    template = refusal("fault-injected")
    return (
        None if plain is None else template._replace(status=plain),
        None if call is None else template._replace(grpc_status=call),
    )


class FaultInjection:
    """All faults of one route."""

    __slots__ = ("_faults", "_likely")

    def __init__(self, specs: Sequence[FaultSpec], where: str = "faults") -> None:
        """
        Raises:
            ContractError: A fault does nothing, or its match is not valid.
        """
        self._faults = tuple(Fault(spec, f"{where}[{i}]") for i, spec in enumerate(specs))
        self._likely = max((fault.likely for fault in self._faults), default=0.0)

    def draw(
        self,
        head: RequestHead,
        identity: str | None,
        random: Callable[[], float],
        *,
        call: bool,
    ) -> Injected | None:
        """
        Return what is to be done to a request, or None for nothing.

        Args:
            head: As the client has sent it.
            identity: Of the caller, as it was proved; None where it was not.
            random: Between 0 and 1.
            call: It is one of gRPC.
        """
        chance = random()
        if chance >= self._likely:  # whichever fault means it, if any: it is spared
            return None
        for fault in self._faults:
            if not fault.conditional or fault.means(head, identity):
                return fault.draw(chance, random, call=call)
        return None
