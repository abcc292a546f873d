"""
One request and its response: the story of the whole proxy in one file.

Read the methods from top to bottom: they stand in the order in which a request meets them.  Each
calls the policy it needs by name; the reasoning behind a policy is in `policies/<name>.py`, and
no policy knows that the others exist.

    downstream ──on_request_*──▶ Exchange ──send_*──▶ upstream stream
    downstream ◀──send_*──────── Exchange ◀─on_response_*── upstream stream

Both sides speak the same four words (head, data, end, reset; beside them informational heads, and
pause and resume for the slower side), so HTTP/1.1 and HTTP/2 meet here without either knowing about
the other.  `neighbours.py` has all that an exchange knows of those it meets.  Where data are known to
be the `last`, that says `end`, too: most answers are a head and one piece of data, and a word costs
several calls.  Sidecar A's outbound half and sidecar B's inbound half run this same file; what differs
(who calls, which routes) comes with the `Caller`.

A request that asks to switch protocols (Upgrade, extended CONNECT) is an exchange, too: only its
"body" is held back until the answer has switched, and from then on each direction ends by itself.

Nothing in this file waits.  "Later" is always another method, named `on_…`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Final, cast

from meshproxy.codec import grpc
from meshproxy.hedge import SecondAttempt
from meshproxy.local_reply import local_reply
from meshproxy.message import TUNNEL, Field, Fields, RequestHead, ResponseHead, field, value_of
from meshproxy.mirror import Mirror
from meshproxy.neighbours import (
    Caller,
    Cluster,
    Downstream,
    Endpoint,
    Guard,
    Upstream,
    UpstreamTunnel,
)
from meshproxy.policies import deadline, load_shedding, mirroring, propagation
from meshproxy.policies.deadline import FAR, LEAST, LOOKS, NO_TIMEOUTS
from meshproxy.policies.fault_injection import Injected
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing.affinity import Affinity
from meshproxy.policies.load_balancing.another import another
from meshproxy.policies.load_shedding import LoadShedding
from meshproxy.policies.loop_detection import VIA
from meshproxy.policies.outcome import (
    BREAKS,
    FAIR,
    HURRIED,
    REFUSAL,
    UNHEARD,
    excuse,
    is_late,
)
from meshproxy.policies.propagation import NOTHING, Context
from meshproxy.policies.rate_limit import Refused
from meshproxy.policies.retry import (
    ASKED,
    IDEMPOTENT,
    NEVER,
    RETRIED,
    RETRIED_FIELD,
    UNPROCESSED,
    Retry,
    retry_after,
)
from meshproxy.refusal import Refusal, refusal
from meshproxy.routing.split import Backend
from meshproxy.routing.table import Route

HOLD_LIMIT: Final = 64 * 1024
"""Bytes of a request's body that are held while nobody takes them; then the client waits."""

LARGE: Final = 512 * 1024
"""Bytes of a body that is worth a connection of its own (`upstream/bulk.py`)."""

LASTING: Final = 2
"""How many requests by a route, after one with a large answer, are taken for such, too."""

NOTICEABLE: Final = 0.001
"""Seconds: below that, a `grpc-timeout` is passed on as it came."""

DELAYED: Final = "DI"
"""Envoy's flag of what was delayed on purpose."""

EXHAUSTED: Final = "URX"
"""Envoy's flag of an answer that is passed on because all tries are used up."""

WORTH_TELLING: Final = 0.05
"""Share of what is left of a deadline: who has spent less is not the one to blame."""

_LATER: Final = field(b"Retry-After", b"%d" % load_shedding.RETRY_AFTER)
_FINE: Final = (None, grpc.NO_STATUS, "0")
"""What the head of an answer may say of its gRPC status when nothing is wrong so far."""

# What has become of further attempts?
_RETRYING: Final = 1  # there are some, so it counts as one of `Cluster.retries`
_DENIED: Final = 2  # there was no room for one
_DOUBTFUL: Final = 4  # one has failed that may have been executed, and should not be twice
_EXCUSED: Final = 8  # the last one has failed, and its endpoint is not to blame
_NO_ROOM: Final = 16  # the body is not kept for one: other bodies fill the memory for that
_UNSENT: Final = 32  # so often: attempts that ended before anything was sent; the highest bits

# Has the exchange become a tunnel?
_NO_TUNNEL: Final = 0
_TUNNEL: Final = 1
_TUNNEL_ANSWERED: Final = 2  # the endpoint's direction has ended, the client's has not


def exchanges_of(caller: Caller) -> "Callable[[Downstream], Exchange]":
    """Return what begins an exchange of this caller, for a downstream."""
    return _Begin(caller)


class _Begin:
    """A function within the other would know itself, and wait for the cycle collector."""

    __slots__ = ("_caller",)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __call__(self, downstream: Downstream) -> "Exchange":
        return Exchange(downstream, self._caller)


class Exchange:
    """
    One request and its response, over all its attempts.

    Attributes:
        context: What the request brought along, or took over from the one it is made for.
        excused: Why a failure is not held against the endpoint; where there is such a reason.
        flag: What is counted where nothing goes wrong.
        answer_fields: What the answer tells beyond what the endpoint says; None for nothing.
        mirrors: Copies of the request; None for none.
        shedding: Has let the request in, and must hear of its end; None where nobody must.
        admitted: When that was, or when the last of its body came; infinite when it is answered.
        deadline: When nobody waits for the answer any more; infinite where nobody has said.
        due: When the timer comes: no later than the first limit can be broken.
        moved: Something of the request or its answer has passed since somebody last looked.
    """

    __slots__ = (
        "_route",
        "admitted",
        "affinity",
        "answer_due",
        "answer_fields",
        "attempt_due",
        "attempts",
        "backend",
        "began",
        "body",
        "body_size",
        "caller",
        "cluster",
        "context",
        "deadline",
        "done",
        "downstream",
        "due",
        "endpoint",
        "excused",
        "flag",
        "grpc_status",
        "head",
        "idle_since",
        "joined",
        "mirrors",
        "moved",
        "protocol",
        "request_ended",
        "request_paused",
        "retry",
        "retrying",
        "second",
        "seconds",
        "shedding",
        "started",
        "status",
        "surroundings",
        "timeouts",
        "timer",
        "trailers",
        "tried",
        "tunnel",
        "upstream",
    )

    admitted: float
    head: RequestHead
    backend: Backend[Cluster]
    began: float
    cluster: Cluster
    due: float
    excused: str
    retry: Retry

    def __init__(self, downstream: Downstream, caller: Caller) -> None:
        # For the whole exchange
        self.downstream = downstream
        self.caller = caller
        self.surroundings = surroundings = caller.surroundings
        self.started = self.idle_since = surroundings.now()
        self.protocol = downstream.protocol  # or `grpc`, when the head has told
        self.timeouts = NO_TIMEOUTS
        self.deadline = inf
        self.moved = False
        self.timer: set[Exchange] | None = None  # our slot in the wheel
        self.done = False
        self._route: Route[Cluster] | None = None
        self.affinity: Affinity[Endpoint] | None = None  # None: any endpoint will do
        self.context: Context[Exchange] = NOTHING
        self.joined: Context[Exchange] | None = None  # ours in the table, or whose call we are
        self.flag = "-"
        self.shedding: LoadShedding | None = None
        self.mirrors: list[Mirror] | None = None
        # The request so far
        self.body: list[bytes] | None = []  # None: too much to be kept and sent a second time
        self.body_size = 0
        self.trailers: Fields | None = None
        self.request_ended = False
        self.request_paused = False
        # The current attempt
        self.attempts = 0
        self.attempt_due = inf  # the end of its answer
        self.answer_due = inf  # its head
        self.endpoint: Endpoint | None = None
        self.tried: tuple[Endpoint, ...] | None = None  # of attempts that ended, the last one last
        self.seconds = 0.0  # from `began` to the head of its answer
        self.upstream: UpstreamTunnel | None = None
        self.second: SecondAttempt | None = None  # beside it, where the policy hedges
        self.retrying = 0
        # The response so far
        self.status = 0  # not 0: the client has seen the head of its answer
        self.grpc_status: str | None = None  # None: not gRPC
        self.tunnel = _NO_TUNNEL
        self.answer_fields: Fields | None = None
        surroundings.exchanges.add(self)

    # 1. The request head has arrived: where does it go? -------------------------------------------

    def on_request_head(self, head: RequestHead) -> None:  # noqa: C901 - a part is a call
        """Begin; a head without a body is the whole request, and no end follows."""
        self.head = head
        if head.method == b"POST" and head.length != TUNNEL and grpc.is_grpc(b"POST", head.fields):
            self.protocol = "grpc"
            self.grpc_status = grpc.NO_STATUS  # it comes at the end
        self.request_ended = head.length is None
        if head.method == b"CONNECT":
            return self._connect(head)
        caller = self.caller
        guard = caller.guard
        if guard is not None and self._stopped(guard, head):
            return None
        said, loops = head.mesh_fields, caller.loops
        mark = loops.first if said is None else loops.mark(said)
        if mark is None:
            return self.refuse("loop")
        virtual_host = caller.virtual_host or caller.authorities.find(head.authority)
        route = None if virtual_host is None else virtual_host.find(head)
        if route is None:
            return self._refuse_unrouted(head, known=virtual_host is not None)
        self._route = route
        if route.rate_limit is not None:
            told = route.rate_limit.ask(head, caller.source, self.started)
            if isinstance(told, Refused):
                return self._refuse_excess(told)
            self.answer_fields = told
        if route.redirect is not None:
            return self.redirect(route.redirect.status, route.redirect.location(head))
        backend, split = None, route.split
        if split is not None:
            backend = split.only or split.choose(self.surroundings.random())
        if backend is None or backend.cluster is None:
            return self.refuse("unresolved-backend")
        self.backend = backend
        self.cluster = backend.cluster
        if backend.cluster.sticky or route.session is not None:
            self._bind(head, route)
        cluster = self.cluster
        if cluster.mtls:  # an app would not know what to make of it
            head.fields.append(mark)
        self.retry = cluster.retry if route.retry is None else route.retry
        budget = cluster.budget  # a method of its own would be a call more per request
        if self.started >= budget.turn:
            budget.roll(self.started)
        budget.requests += 1
        if head.trace_fields is not None or (
            said is not None and (len(said) > 1 or said[0][0] != VIA)
        ):
            self._join(head)
        elif self.surroundings.propagation.by_id and caller.direction == "outbound":
            self.surroundings.propagation.unknown += 1  # it does not even say of which trace it is
        injected = None
        if route.faults is not None:
            call = self.grpc_status is not None
            injected = route.faults.draw(head, caller.source, self.surroundings.random, call=call)
        if route.edits or caller.identity_field is not None or self.backend.edits:
            self.prepare(head, route, self.backend)
        timeouts, overrides = cluster.timeouts, route.timeouts
        if overrides is not None:  # `over` without the call, where it has just been asked the same
            timeouts = overrides.made if overrides.of is timeouts else overrides.over(timeouts)
        self.timeouts = timeouts
        if (
            timeouts.near or self.context is not NOTHING or self.grpc_status is not None
        ) and self._limit(head):
            return None
        if injected is not None:
            return self._inject(injected)
        if cluster.shedding is not None or route.mirroring is not None:
            return self.admit()
        return self.begin_attempt()

    def _stopped(self, guard: Guard, head: RequestHead) -> bool:
        """Say whether the caller may not have this: then it is told so, and nothing else."""
        why = guard.stop(head, self.downstream)
        if why is None:
            return False
        code, number, fields = why
        self._refuse(refusal(code), "", fields, hop=f"denial {number}")
        return True

    def _refuse_excess(self, refused: Refused) -> None:
        """The caller has had all the requests that it may make."""
        self.answer_fields = refused.fields
        why = "overflow" if refused.overflow else "limit"
        self.surroundings.rate_limited(self.caller.direction, refused.limit, why)
        self.refuse("rate-limited", f"its limit is {refused.limit!r}")

    def _inject(self, injected: Injected) -> None:
        if not injected.delay:
            return self.on_delayed(injected)
        self.flag = DELAYED
        surroundings = self.surroundings
        surroundings.fault_injected(self.caller.direction, injected.fault, "delay")
        return surroundings.later(injected.delay, partial(self.on_delayed, injected))

    def on_delayed(self, injected: Injected) -> None:
        """The time has passed that was to be lost, if any."""
        if self.done:  # perhaps it was all the time that there was
            return None
        if injected.abort is None:
            return self.admit()
        self.surroundings.fault_injected(self.caller.direction, injected.fault, "abort")
        return self._refuse(injected.abort, f"it is called {injected.fault!r}")

    def _refuse_unrouted(self, head: RequestHead, *, known: bool) -> None:
        name = head.authority.decode()
        why = f"no service of the mesh is known here as {name}"
        if known:
            why = f"{name} is known, but none of its rules matches"
        elif self.caller.leads_to(head.authority):
            why = f"{name} is known, but does not speak HTTP; CONNECT leads there"
        self.refuse("no-route", why)

    def _connect(self, head: RequestHead) -> None:
        """
        Let the client of an HTTP proxy talk to a service as if it had dialled it itself.

        What it says then are requests like others, or it would pass our policies by.  RFC 9110
        section 9.3.6 asks for care with the places that can be had so: services, nothing else.
        """
        caller = self.caller
        if caller.virtual_host is not None:  # no proxy for many places, but one of them
            return self.refuse("not-implemented")
        known = caller.authorities.find(head.authority) is not None
        if not known and not caller.leads_to(head.authority):
            name = head.authority.decode()
            return self.refuse("no-route", f"no service of the mesh is known here as {name}")
        if not self.downstream.start_over(ResponseHead(200, [], TUNNEL)):
            return self.refuse("not-implemented")
        self.status = 200
        return self._finish("-")

    def _join(self, head: RequestHead) -> None:
        """Which work is the request part of, and what was allowed to that?"""
        table = self.surroundings.propagation
        said, traced = head.mesh_fields, head.trace_fields
        if self.caller.direction == "inbound":
            if said is not None and self.caller.identity_field is not None:
                self.context = propagation.read(said, self.started)
            if traced is None:
                return
            ids, line = propagation.trace_of(traced)
            if ids:
                self.joined = self.context = context = self.context.own()
                context.started = self.started
                table.enter(context, ids, line)
            return
        if table.by_id:
            found = table.find(*propagation.trace_of(traced or ()))  # `()`: counted as unknown
            if found is not None:
                found.calls.add(self)
                self.joined = self.context = found
        if said is not None:
            self.context = propagation.read(said, self.started).within(self.context)

    def _limit(self, head: RequestHead) -> bool:
        """Find out how long all this may take; return True where that is over, and it was refused."""
        timeouts, started, context = self.timeouts, self.started, self.context
        allowed = started + timeouts.request
        if context.deadline < allowed:
            allowed = context.deadline
        if self.grpc_status is not None:
            allowed = self._limit_call(head, allowed)
        self.deadline = allowed
        if self.joined is not None and self.caller.direction == "inbound":
            context.deadline = allowed  # of the calls that will be made for it
        left = allowed - started
        if left >= FAR and not (timeouts.soon or context.gone):  # as nearly always
            return False
        if left < LEAST:
            self._refuse_late()
        elif context.gone:
            self.refuse("caller-gone")
        else:
            # That of an attempt may begin later: then there is nothing yet when the timer comes.
            self._arm(started + min(left, timeouts.first))
        return self.done

    def _limit_call(self, head: RequestHead, allowed: float) -> float:
        """A gRPC call says itself how long its caller will wait; make it say no more than is allowed."""
        said = grpc.timeout_of(head.fields)
        if said is not None and self.started + said <= allowed:
            return self.started + said
        if allowed != inf:
            propagation.put(head.fields, grpc.timeout_field(max(allowed - self.started, 0.0)))
        return allowed

    def prepare(self, head: RequestHead, route: Route[Cluster], backend: Backend[Cluster]) -> None:
        """Make the head what the endpoint shall see."""
        if route.request_headers is not None:
            head.fields = route.request_headers.apply(head.fields)
        if backend.request_headers is not None:
            head.fields = backend.request_headers.apply(head.fields)
        if route.rewrite is not None:
            route.rewrite.apply(head)
        # `head.mesh_fields` stay behind: what claims to come from a mesh proxy is made anew.
        if self.caller.identity_field is not None:
            head.fields.append(self.caller.identity_field)
            if self.context.mirrored:
                head.fields.append(mirroring.MARK)

    def admit(self) -> None:
        """Let the app have the request, if it can bear one more; and others a copy of it."""
        shedding = self.cluster.shedding
        if shedding is not None:
            now = self.started if self.flag is not DELAYED else self.surroundings.now()
            matters, source = self.context.criticality, self.caller.source
            turned_away = shedding.admit(matters, now, source)
            if turned_away is not None and self._clear_places():
                turned_away = shedding.admit(matters, now, source)
            if turned_away is not None:
                self.surroundings.shed(self.cluster.service, turned_away)
                return self.refuse("overloaded", f"its criticality is {turned_away}", (_LATER,))
            self.shedding, self.admitted = shedding, now
        mirroring = None if self._route is None else self._route.mirroring
        if mirroring is not None and not self.context.mirrored:
            clusters = mirroring.draw(self.surroundings.random)
            if clusters and self.head.length != TUNNEL:
                self._mirror(clusters)
        return self.begin_attempt()

    def _mirror(self, clusters: Sequence[Cluster]) -> None:
        surroundings = self.surroundings
        self.mirrors = mirrors = [Mirror(self.head, one, surroundings) for one in clusters]
        for mirror in mirrors:
            mirror.begin()
            for data in self.body or ():
                mirror.on_request_data(data)
            if self.request_ended:
                mirror.on_request_end(self.trailers)

    def _bind(self, head: RequestHead, route: Route[Cluster]) -> None:
        """Find out where a request belongs: to who served its session, or with what has its key."""
        surroundings, cluster = self.surroundings, self.cluster
        session = route.session or cluster.session
        tokens = surroundings.tokens
        self.affinity = affinity = Affinity[Endpoint](head, route.name, session, tokens)
        wanted = affinity.wanted()
        if wanted is not None and tokens is not None:
            # A rule's session comes before its weights.
            split = None if route.session is None else route.split
            for backend in (self.backend,) if split is None else split.backends:
                found = backend.cluster and backend.cluster.resume(wanted, tokens)
                if found and backend.cluster:
                    affinity.endpoint = found
                    self.backend, self.cluster = backend, backend.cluster
                    return
        if cluster.hash_key is not None:
            key, cookie = cluster.hash_key.of_request(
                head, self.caller.source, self.downstream, surroundings.random
            )
            affinity.hashed(key, cookie)

    # 2. Choose an endpoint and borrow a connection to it ------------------------------------------

    def begin_attempt(self) -> None:
        if self.done:
            return None
        if self.attempts and self.deadline - self.surroundings.now() < LEAST:
            return self._refuse_late()
        self.attempts += 1
        cluster = self.cluster
        requests = cluster.requests
        affinity = self.affinity
        if requests.count >= requests.ceiling and not self._is_admitted(requests):
            endpoint = None
        elif self.tried is not None:
            key = None if affinity is None else affinity.key
            endpoint, self.tried = another(cluster.pick, self.tried, key)
        elif affinity is None:
            endpoint = cluster.pick(None, None)
        else:
            endpoint = affinity.endpoint or cluster.pick(None, affinity.key)
        if endpoint is None:
            self.retrying += _UNSENT
            return self.refuse(*cluster.refusal(requests))
        requests.count += 1
        endpoint.active += 1
        self.endpoint = endpoint
        self.began = self.surroundings.now()
        if self.retry.hedge is not None and self.attempts == 1:
            delay = cluster.latencies.delay(self.retry.hedge)
            if delay is not None:
                self.surroundings.later(delay, self.on_hedge_due)
        length, route = self.head.length, self._route
        if length is None:  # no body; but what is asked for may be as large as it was before
            large = route is not None and route.heavy > 0 and self.grpc_status is None
        else:
            large = length >= LARGE
        return endpoint.acquire_apart(self) if large else endpoint.acquire(self)

    def _is_admitted(self, requests: Limit) -> bool:
        admits = self.cluster.admits
        return admits(requests) or (self._clear_places() and admits(requests))

    def _clear_places(self) -> bool:
        """There is no room: take the places of those whose bodies do not come; say whether any did."""
        cluster, surroundings = self.cluster, self.surroundings
        now = surroundings.now()
        if not cluster.stalled.look(now):
            return False
        served = [
            one
            for one in surroundings.exchanges
            if one.endpoint is not None and one.cluster is cluster
        ]
        stalled = cluster.stalled.among(served, now)
        for one in stalled:
            if not one.done:  # the end of one may have been that of another
                one._break_off("body-timeout")  # noqa: SLF001 - one of ours
        return bool(stalled)

    def on_upstream_ready(self, upstream: Upstream) -> None:
        """A connection is ours: say all that the client has said so far."""
        self.upstream = upstream
        if (
            self.deadline != inf
            or self.timeouts.of_attempt != inf
            or self.context is not NOTHING
            or self.attempts > 1
        ):
            self._pass_on()
        upstream.send_head(self.head)
        if self.body and self.head.length != TUNNEL:
            for data in self.body:
                upstream.send_data(data)
            if self.body_size > self.retry.uncounted:
                self._keep(self.body)
        if self.request_ended and self.head.length not in (None, TUNNEL):
            upstream.send_end(self.trailers)
        if self.downstream.blocked:
            upstream.pause_response()
        if upstream.blocked:  # by what the request before us left, or by our own first words
            self.on_upstream_blocked()
        elif self.request_paused:
            self._resume_request()

    def _pass_on(self) -> None:  # noqa: C901 - see above
        """Tell who comes next what it should know of the whole that this is part of."""
        now, timeouts = self.surroundings.now(), self.timeouts
        if timeouts.of_attempt != inf:
            self.attempt_due = now + timeouts.attempt
            self.answer_due = now + timeouts.answer
            # As a rule the timer that was set in the beginning comes before that, or the look does.
            if timeouts.of_attempt < FAR or self.timer is not None:
                self._arm(now + timeouts.of_attempt)
        fields, context, deadline_ = self.head.fields, self.context, self.deadline
        if deadline_ != inf:
            if self.grpc_status is None:
                one = propagation.deadline_field(deadline_ - now)
                if self.attempts == 1:  # codecs set such fields apart: nobody has said it before us
                    fields.append(one)
                    if context is NOTHING and now - self.started < LEAST:
                        return  # nor is there more to say
                else:
                    propagation.put(fields, one)
            elif now - self.started >= NOTICEABLE:
                propagation.put(fields, grpc.timeout_field(deadline_ - now))
            if self.caller.direction == "outbound" and (
                now - self.started >= LEAST or context is not NOTHING
            ):
                self._tell_spender(now)
        attempt = context.attempt + self.attempts - 1
        if attempt > 1:
            propagation.put(fields, propagation.attempt_field(attempt))
        if context.criticality is not None:
            propagation.put(fields, propagation.criticality_field(context.criticality))
        if context.mirrored:
            propagation.put(fields, mirroring.MARK)

    def _tell_spender(self, now: float) -> None:
        """Of the time that is spent already, somebody has had the most; of little, nobody is told."""
        context, begun = self.context, self.started
        if context.started < begun:
            begun = context.started
        worth = (self.deadline - begun) * WORTH_TELLING
        if now - begun >= worth or context.spent >= worth:
            name, took = deadline.spender(self._spenders(now))
            if name:
                propagation.put(self.head.fields, propagation.spent_field(name, took))

    def _spenders(self, now: float) -> Iterator[tuple[str, float]]:
        """Yield who has had how much of the time."""
        context, workload = self.context, self.caller.workload
        yield context.spender, context.spent
        if self.caller.direction == "inbound":
            joined = self.joined  # None where there is no trace to know calls by
            calls = () if joined is None else joined.calls
            waits = [(call.cluster.service, now - call.started) for call in calls]
            yield workload, now - self.started - max((took for _, took in waits), default=0.0)
            yield from waits
        else:
            if context.started != inf:
                yield workload, self.started - context.started
            yield self.cluster.service, now - self.started

    def on_upstream_failed(self, code: str) -> None:
        """No connection could be had; nothing of the request was sent."""
        self.retrying += _UNSENT
        self._end_attempt(code)
        self._retry_or_refuse(code, sent=False, reused=False)

    # 3. The request body follows ------------------------------------------------------------------

    def on_request_data(self, data: bytes, last: bool = False) -> None:  # noqa: C901 - see above
        if self.done:
            return
        if last:
            if self.head.length == TUNNEL:
                self.on_request_data(data)
                self.on_request_end(None)
                return
            self.request_ended = True
            if self.shedding is not None:
                self._hand_over()
        if self.mirrors is not None:
            for mirror in self.mirrors:
                mirror.on_request_data(data, last)
        body = self.body
        if body is not None:
            if self.head.length == TUNNEL:
                self._hold_early(body, data)
                return
            self.body_size += len(data)
            body.append(data)
        self.moved = True
        upstream = self.upstream
        if upstream is not None:
            if self.body_size > self.retry.uncounted and body is not None:
                self._keep(body)
            upstream.send_data(data, last)
        elif self.body_size > HOLD_LIMIT and not self.request_paused:
            self.request_paused = True  # nobody takes it yet: the client waits, not our memory
            self.downstream.pause_request()

    def _keep(self, body: list[bytes]) -> None:
        """Keep what has been sent of a body for another attempt, if there is room for so much."""
        if self.body_size > self.retry.replay_limit:
            self.body = None
            return
        self.body = self.surroundings.replay.keep(body, self.body_size)
        if self.body is None:
            self.retrying |= _NO_ROOM

    def _hand_over(self) -> None:
        """From now on it is the app that takes its time: a slow client's says nothing about it."""
        if self.admitted < inf and self.shedding is not None:
            now = self.surroundings.now()
            self.shedding.handed_over(self.admitted, now)
            self.admitted = now

    def _hold_early(self, early: list[bytes], data: bytes) -> None:
        """
        Keep what the client says in another protocol before anybody has switched to it.

        To an endpoint that does not switch it would be the next request, one that no policy has
        seen (CVE-2026-2833); when the answer has declined, it is nothing at all.
        """
        if self.status:
            return
        self.body_size += len(data)
        early.append(data)
        if self.body_size > HOLD_LIMIT and not self.request_paused:
            self.request_paused = True
            self.downstream.pause_request()

    def on_request_end(self, trailers: Fields | None) -> None:
        if self.done or self.request_ended:
            return
        if trailers is not None and self.head.length == TUNNEL:
            trailers = None  # RFC 9113 section 8.5: a tunnel has data and an end, nothing else
        self.request_ended = True
        self.trailers = trailers
        if self.shedding is not None:
            self._hand_over()
        if self.mirrors is not None:
            for mirror in self.mirrors:
                mirror.on_request_end(trailers)
        if self.upstream is not None and (self.status or self.head.length != TUNNEL):
            self.upstream.send_end(trailers)
            if self.tunnel == _TUNNEL_ANSWERED:
                self._end_tunnel()

    # 4. The answer: forward it, or try once more --------------------------------------------------

    def on_response_informational(self, head: ResponseHead) -> None:
        self.downstream.send_informational(head)

    def on_response_head(self, head: ResponseHead) -> None:  # noqa: C901 - its parts would be calls
        self.moved = True
        self.answer_due = inf
        now = self.surroundings.now()
        self.seconds = now - self.began
        if self.grpc_status is not None:  # an answer without a body has it in its head
            self.grpc_status = grpc.status_of(head.fields) or grpc.NO_STATUS
        if (head.status >= 400 or self.grpc_status not in _FINE) and self._ask_again(head):
            return
        if self.shedding is not None:
            self.shedding.answered(head.status, self.grpc_status, self.admitted, now)
            self.admitted = inf
        if self.retry.hedge is not None:
            self._end_race()
        self.status = head.status
        early, self.body = self.body, None
        if head.mesh_fields is not None and self.caller.direction == "outbound":
            # The next sidecar's refusal.  Inbound, an app has said so, who is no mesh proxy.
            head.fields += head.mesh_fields
        length, route = head.length, self._route
        if route is not None:
            if length is not None and length >= LARGE:
                route.heavy = LASTING
            elif route.heavy:
                route.heavy -= 1
            if route.response_headers is not None:
                head.fields = route.response_headers.apply(head.fields)
        if self.backend.response_headers is not None:
            head.fields = self.backend.response_headers.apply(head.fields)
        if self.answer_fields is not None:
            head.fields += self.answer_fields
        if self.affinity is not None:
            head.fields += self.affinity.answer(self.endpoint)
        if self.head.length != TUNNEL:
            self.downstream.send_head(head)
        elif head.length == TUNNEL:
            self._open_tunnel(head, early or [])
        else:
            self._decline_tunnel(head)

    def _ask_again(self, head: ResponseHead) -> bool:
        """
        Say whether another attempt is made instead of passing on an answer that is a failure.

        Its head is all that has come of it, and we are the only ones who have seen that.
        """
        grpc_status = self.grpc_status
        said = head.mesh_fields if self.cluster.mtls else None
        refused, below = None, False
        if said is not None:
            refused, below = value_of(said, REFUSAL), value_of(said, RETRIED) is not None
        elsewhere = len(self.cluster.available) > 1
        case = self.retry.of_answer(head.status, grpc_status, refused, elsewhere=elsewhere)
        again = case != NEVER
        excused = self._excuse(head.status, said)
        if again and self.second is None:
            reason = str(head.status) if grpc_status in _FINE else f"grpc-{grpc_status}"
            after = retry_after(head.fields)
            again = self._try_again(case, reason, below=below, after=after)
        if not again:
            if excused:
                self.retrying |= _EXCUSED
                self.excused = excused
            self._tell_of_retries(head.fields, below=below)
            return False
        if case != UNPROCESSED:
            self._doubt()
        upstream, self.upstream = self.upstream, None
        cast("Upstream", upstream).discard(head.length)
        self._end_attempt(excused, head.status)
        if self.grpc_status is not None:
            self.grpc_status = grpc.NO_STATUS
        return True

    def _excuse(self, status: int, said: Fields | None) -> str:
        """
        Return why a failure is not held against the endpoint; empty where it is.

        Args:
            status: Of its answer.
            said: Its mesh fields, where a proved peer gave it.
        """
        if is_late(status, self.grpc_status) and self._is_hurried:
            return HURRIED
        if said is not None and self._is_unheard:
            refused = value_of(said, REFUSAL)
            if refused is not None and refused.decode("latin-1") in BREAKS:
                return UNHEARD
        return excuse(said)

    @property
    def _is_unheard(self) -> bool:
        """
        The endpoint may not have heard all of the request: its body is still to come, or is large.

        What we have been rid of may still lie in the kernel's buffers when the connection breaks.
        """
        said = self.request_ended and self.body_size <= HOLD_LIMIT
        return not said and self.grpc_status is None and self.head.length != TUNNEL

    @property
    def _is_hurried(self) -> bool:
        """The caller, and none of our policies, has allowed the attempt less time than is fair."""
        deadline = self.deadline
        return deadline < self.started + self.timeouts.request and deadline - self.began < FAIR

    def on_upstream_switched(self, upstream: UpstreamTunnel) -> None:
        """The head that opens a tunnel follows; `upstream` carries what comes behind it."""
        self.upstream = upstream

    def _open_tunnel(self, head: ResponseHead, early: list[bytes]) -> None:
        """The endpoint has switched protocols: from here on, bytes go both ways."""
        upstream = self.upstream
        assert upstream is not None
        endpoint = self.endpoint
        assert endpoint is not None
        # Now, and not at the end: that may be days away, and is the work of both ends.
        endpoint.judge(head.status, None, "", self.seconds, self.began)
        self.tunnel = _TUNNEL
        self.deadline = self.attempt_due = inf  # they were about this moment
        self.surroundings.tunnels += 1
        self.idle_since = now = self.surroundings.now()
        self.moved = False
        if self.shedding is not None:
            self._leave(self.shedding, now)
        self._arm(self._first_limit(now))
        downstream = self.downstream.switch(head)
        self.downstream = cast("Downstream", downstream)  # it will hear of no more heads
        for data in early:
            upstream.send_data(data)
        if self.request_ended:
            upstream.send_end(None)
        # Both sides may have changed hands: neither knows what was said to the one before it.
        self.request_paused = upstream.blocked
        if upstream.blocked:
            downstream.pause_request()
        else:
            downstream.resume_request()
        if downstream.blocked:
            upstream.pause_response()

    def _decline_tunnel(self, head: ResponseHead) -> None:
        """The endpoint did not switch: the request was one without a body, and has ended."""
        self.body = []  # what was said early, and what still may come of it: see `_hold_early`
        self.request_ended = True
        self.downstream.send_head(head)
        if self.upstream is not None:
            self.upstream.send_end(None)

    def on_response_data(self, data: bytes, last: bool = False) -> None:
        if not last:
            self.moved = True
            self.downstream.send_data(data)
        elif self.tunnel:
            self.downstream.send_data(data)
            self.on_response_end(None)
        else:
            self.upstream = None
            self._finish(self.flag)
            self.downstream.send_data(data, True)

    def on_response_end(self, trailers: Fields | None) -> None:
        if self.tunnel and not self.request_ended:
            self.tunnel = _TUNNEL_ANSWERED
            self.downstream.send_end(None)
            return
        self.upstream = None
        if trailers is not None and self.grpc_status is not None:
            self.grpc_status = grpc.status_of(trailers) or self.grpc_status
            if self.grpc_status not in _FINE and self._excuse(0, None):
                self.retrying |= _EXCUSED
                self.excused = HURRIED
        self._finish(self.flag)
        self.downstream.send_end(None if self.tunnel else trailers)

    # 5. One side is slower than the other ---------------------------------------------------------

    def on_downstream_blocked(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_response()

    def on_downstream_writable(self) -> None:
        self.moved = True
        if self.upstream is not None:
            self.upstream.resume_response()

    def on_upstream_blocked(self) -> None:
        if not self.request_paused:
            self.request_paused = True
            self.downstream.pause_request()

    def on_upstream_writable(self) -> None:
        self.moved = True
        self._resume_request()

    def _resume_request(self) -> None:
        if self.request_paused:
            self.request_paused = False
            self.downstream.resume_request()

    # 6. Time passes -------------------------------------------------------------------------------

    def on_look(self, now: float) -> None:
        """Somebody goes round all exchanges, every few seconds: this one has lasted until now."""
        if self.timer is None and not self.done:
            self._arm(self._first_limit(now))

    def _arm(self, when: float) -> None:
        """Be told at that time, if nothing sooner is waited for."""
        if self.timer is not None:
            if self.due <= when:
                return
            self.surroundings.timers.drop(self.timer, self)
            self.timer = None
        if when != inf:
            self.due = when
            self.timer = self.surroundings.timers.add(self)

    def _first_limit(self, now: float) -> float:
        """Return when the first of all limits could be broken, or must be looked at."""
        idle = self._idle_limit()
        look = deadline.BODY if self._awaits_body() else idle
        return min(
            self.deadline,
            self.attempt_due,
            self.answer_due,
            self.started + self.timeouts.duration,
            self.idle_since + idle,
            now + look / LOOKS,
        )

    def _idle_limit(self) -> float:
        """Return the seconds in which something must move."""
        if self.tunnel:
            return self.timeouts.tunnel_idle
        if self._awaits_body() and not self.request_paused:
            return min(self.timeouts.idle, deadline.BODY)
        return self.timeouts.idle

    def _awaits_body(self) -> bool:
        """Say whether it is the client's turn: of an HTTP/1.1 body its connection takes care."""
        length = self.head.length
        return (
            not (self.request_ended or self.status)
            and length is not None
            and length > 0
            and self.downstream.protocol == "http2"
        )

    def on_due(self) -> None:
        """The first of the limits may have been broken; if so, end it, else wait for the next."""
        self.timer = None
        now = self.surroundings.now()
        if now >= self.deadline:
            return self._break_off("deadline-exceeded", self._whose_fault(now))
        if now >= self.started + self.timeouts.duration:
            return self._break_off("duration-exceeded")
        if now >= self.attempt_due or now >= self.answer_due:
            return self._end_late_attempt()
        if self.moved:
            self.moved = False
            self.idle_since = now
        if now >= self.idle_since + self._idle_limit():
            slow_client = self._awaits_body() and not self.request_paused
            return self._break_off("body-timeout" if slow_client else "stream-idle")
        return self._arm(self._first_limit(now))

    def _whose_fault(self, now: float) -> str:
        return deadline.blame(*deadline.spender(self._spenders(now)))

    def _refuse_late(self) -> None:
        """Nothing is begun for which no time is left."""
        detail = self._whose_fault(self.surroundings.now())
        sent = "no further attempt was made" if self.attempts else "it was not sent on"
        self.refuse("deadline-exceeded", f"{detail}, and {sent}" if detail else sent)

    def _end_late_attempt(self) -> None:
        """The attempt has had its time; another one may be faster."""
        self.attempt_due = self.answer_due = inf
        if self.status:
            return self._break_off("attempt-timeout")
        self._give_up_attempt("attempt-timeout")
        self._arm(self._first_limit(self.surroundings.now()))
        return self._retry_or_refuse("attempt-timeout", sent=True, reused=False)

    def on_cause_gone(self) -> None:
        """The client has gone of the request that this call is made for."""
        if not self.done:
            self.surroundings.cancelled(self.cluster.service)
            self._break_off("caller-gone")

    @property
    def lasting(self) -> bool:
        """Whether it may go on for long, and say much more: a tunnel, or a stream of gRPC."""
        if self.grpc_status is not None:
            return bool(self.status) or not self.request_ended
        return bool(self.tunnel) or (self.head.length == TUNNEL and not self.status)

    def on_forbidden(self, number: str) -> None:
        """A policy has come that does not allow what this goes on with."""
        if self.status:
            return self._break_off("access-denied", f"denial {number}")
        self._give_up_attempt("downstream-closed")
        return self._refuse(refusal("access-denied"), "", hop=f"denial {number}")

    def on_memory_short(self) -> None:
        """The process is short of memory, and nothing of this has moved for longer than of others."""
        if self.done:
            return
        begun = self.status
        self._break_off("memory-pressure")
        if begun:
            self.downstream.reset()  # a last word would wait behind all the rest

    def _break_off(self, code: str, detail: str = "") -> None:
        """End the exchange from here: the answer will not come in time, or nobody needs it."""
        # An endpoint that has begun to answer is not slow: how long that takes, the request decides.
        why = refusal(code)
        told = "downstream-closed" if self.status or why.flag == "DC" else code
        if told == "deadline-exceeded" and self.endpoint is not None and self._is_hurried:
            told = HURRIED
            self.seconds = self.surroundings.now() - self.began
        self._give_up_attempt(told)
        if not self.status:
            return self.refuse(code, detail)
        # Too late for another answer, but for gRPC the status comes last.
        self.surroundings.refused(self.caller.direction, code)
        if self.grpc_status is not None:
            self.grpc_status = str(why.grpc_status)
        self._finish(why.flag)
        if self.grpc_status is not None and self.downstream.protocol == "http2":
            sentence = f"{why.sentence.removesuffix('.')}: {detail}." if detail else why.sentence
            trailers = grpc.status_fields(why.grpc_status, f"{code}: {sentence}")
            return self.downstream.send_end(trailers)
        return self.downstream.reset()  # gRPC-Web has it in its body

    # 7. What can go wrong -------------------------------------------------------------------------

    def on_response_reset(self, code: str, *, reused: bool) -> None:
        """
        The attempt ended without a complete response.

        Args:
            code: Why, as in `refusal.py`.
            reused: It ran on a connection that had served before.
        """
        if self.done:  # a tunnel's other half, after both have ended
            return
        self.upstream = None
        told = code
        if self.surroundings.now() >= self.deadline and self._is_hurried:
            told = HURRIED  # the endpoint has noticed it before us
        elif code in BREAKS and not self.status and self._is_unheard:
            told = UNHEARD
        self._end_attempt(told, self.status)
        if self.status:  # too late for another answer: the client must see that this one is torn
            self._finish(refusal(code).flag)
            self.downstream.reset()
            return
        self._retry_or_refuse(code, sent=refusal(code).processed, reused=reused)

    def on_request_reset(self) -> None:
        """The client has gone."""
        if self.done:
            return
        why = refusal("downstream-closed")
        self._give_up_attempt(why.code)
        if not self.status:  # what the client has seen of an answer it has seen
            self.status = why.status
        if self.grpc_status is not None:
            self.grpc_status = str(why.grpc_status)
        joined = self.joined
        self._finish(why.flag)
        if joined is not None and self.caller.direction == "inbound":
            for call in list(joined.calls):
                call.on_cause_gone()

    def _give_up_attempt(self, code: str) -> None:
        """Nobody waits for its answer any more, nor for that of the one beside it."""
        self._give_up_second()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.reset()
        elif self.endpoint is not None:
            self.endpoint.forget(self)
            self.retrying += _UNSENT
        self._end_attempt(code)

    def _give_up_second(self) -> None:
        second = self.second
        if second is not None:
            second.give_up()
            self._end_second(0, self.grpc_status, "downstream-closed", 0.0)

    def _retry_or_refuse(self, code: str, *, sent: bool, reused: bool) -> None:
        """The attempt has failed without an answer."""
        if self.second is not None:  # which has not
            if sent:
                self._doubt()
            return None
        case = self.retry.of_failure(code, sent=sent, reused=reused)
        if case == NEVER or not self._try_again(case, code):
            return self.refuse(code)
        if case != UNPROCESSED:
            self._doubt()
        return None

    def _try_again(
        self, case: int, reason: str, *, below: bool = False, after: float | None = None
    ) -> bool:
        """
        Make another attempt, now or soon; return False, and count why, where none may be made.

        Args:
            case: What speaks for it (`policies/retry.py`).
            reason: What made the last one fail, for the metric.
            below: What failed had been tried more than once by a proxy behind us.
            after: The seconds that `Retry-After` asks for.
        """
        retry, surroundings, cluster = self.retry, self.surroundings, self.cluster
        why_not = self._objection(case, below=below)
        if not why_not:
            now = surroundings.now()
            wait = retry.wait(case, self.attempts, surroundings.random, after)
            if after is not None and after > retry.max_backoff:
                why_not = "retry-after"
            elif self.deadline - now - wait < LEAST:
                why_not = "deadline"
            elif not self._is_below_limit(cluster.retries):
                why_not = "overflow"
            elif not cluster.budget.withdraw(now):
                why_not = "budget"
            else:
                self._begin_retrying(cluster.retries)
                surroundings.retried(cluster.service, reason)
                surroundings.later(wait, self.begin_attempt)
                return True
        if why_not in ("budget", "overflow"):
            self.retrying |= _DENIED
        elif why_not == "body-too-large" and self.retrying & _NO_ROOM:
            why_not = "replay-memory"
        if why_not != "attempts":
            surroundings.retry_skipped(cluster.service, why_not)
        elif self.attempts > 1:  # it has had all that it was promised
            self.flag = EXHAUSTED
        return False

    def _objection(self, case: int, *, below: bool = False) -> str:
        return self.retry.objection(
            case,
            self.head,
            made=self.attempts,
            held=self.body is not None,
            of_retry=self.context.attempt > 1,
            below=below,
        )

    def _is_below_limit(self, retries: Limit) -> bool:
        """Say whether the cluster has room for an exchange that makes more than one attempt."""
        return bool(self.retrying & _RETRYING) or not retries.full

    def _begin_retrying(self, retries: Limit) -> None:
        if not self.retrying & _RETRYING:
            self.retrying |= _RETRYING
            retries.count += 1

    def _doubt(self) -> None:
        """
        An attempt has failed that may have been executed; whatever follows, nobody can tell.

        Of idempotent methods that is all the same: to repeat them is safe.
        """
        if self.head.method not in IDEMPOTENT:
            self.retrying |= _DOUBTFUL

    def _tell_of_retries(self, fields: Fields, *, below: bool = False) -> None:
        """What fails here was tried more than once: nobody before us shall do the same again."""
        joined = self.joined
        if (
            self.retrying & (_RETRYING | _DENIED)
            or below
            or (joined is not None and joined.retried)
        ):
            if self.caller.direction == "inbound":
                fields.append(RETRIED_FIELD)
            elif joined is not None:
                joined.retried = True

    # A second attempt beside a slow first one -------------------------------------------------------

    def on_hedge_due(self) -> None:
        """Most requests have their answer by now: ask somebody else, too."""
        first, cluster, surroundings = self.endpoint, self.cluster, self.surroundings
        if self.done or self.status or first is None or self.attempts > 1:
            return
        requests = cluster.requests
        # Full, or shut by the breaker: that lets probes through, and a hedge is none.
        if not self.request_ended or self._objection(ASKED) or requests.count >= requests.ceiling:
            return
        affinity = self.affinity
        endpoint = cluster.pick((first,), None if affinity is None else affinity.key)
        if endpoint is None or endpoint is first:
            return
        now = surroundings.now()
        if cluster.retries.full or not cluster.budget.withdraw(now):
            surroundings.retry_skipped(cluster.service, "hedge-budget")
            return
        self._begin_retrying(cluster.retries)
        self.attempts += 1
        requests.count += 1
        surroundings.hedged(cluster.service)
        self.second = SecondAttempt(self, endpoint, now)
        self.second.begin()

    def on_second_ready(self) -> None:
        """The head is about to be said once more."""
        self._pass_on()  # the limits of an attempt hold from now on, for both

    def on_second_answer(self, second: SecondAttempt, head: ResponseHead) -> None:
        """The second attempt has an answer; unless that is a failure, it is the only one now."""
        surroundings = self.surroundings
        seconds = surroundings.now() - second.began
        if self.endpoint is not None:
            status = None if self.grpc_status is None else grpc.status_of(head.fields)
            if self.retry.of_answer(head.status, status) != NEVER:
                self._doubt()
                said = head.mesh_fields if self.cluster.mtls else None
                self._end_second(head.status, status, excuse(said), seconds)
                second.discard(head)  # the first may still do better
                return
            surroundings.hedge_won(self.cluster.service)
        self.cluster.latencies.record(surroundings.now() - self.started)
        self.second = None
        due = self.attempt_due
        if self.endpoint is not None:
            self._give_up_attempt("downstream-closed")
        self.attempt_due = due
        self.endpoint, self.upstream = cast("Endpoint", second.endpoint), second.upstream
        second.won = True
        self.began = second.began
        if self.downstream.blocked and second.upstream is not None:
            second.upstream.pause_response()
        self.on_response_head(head)

    def on_second_failed(self, code: str, *, sent: bool, reused: bool) -> None:
        """The second attempt has come to nothing."""
        self._end_second(0, self.grpc_status, code, 0.0)
        if sent:
            self._doubt()
        if self.endpoint is None:  # nor has the first
            self._retry_or_refuse(code, sent=sent, reused=reused)

    def _end_race(self) -> None:
        """The attempt that was begun first, or is the only one, has answered."""
        if self.attempts == 1 or self.second is not None:
            self.cluster.latencies.record(self.surroundings.now() - self.started)
        self._give_up_second()

    def _end_second(self, status: int, grpc_status: str | None, code: str, seconds: float) -> None:
        second, self.second = self.second, None
        if second is not None:
            self.tried = (*(self.tried or ()), cast("Endpoint", second.endpoint))
            self.cluster.requests.count -= 1
            if not second.sent:
                self.retrying += _UNSENT
            second.end(status, grpc_status, code, seconds)

    def refuse(self, code: str, detail: str = "", more: Sequence[Field] = ()) -> None:
        """Answer in the service's stead: what happened, where, and whether it may be repeated."""
        self._refuse(refusal(code), detail, more)

    def _refuse(self, why: Refusal, detail: str, more: Sequence[Field] = (), hop: str = "") -> None:
        if self.retrying & _DOUBTFUL and not why.processed:
            why, detail = refusal("retry-failed"), why.code
        self.surroundings.refused(self.caller.direction, why.code)
        head, body = local_reply(
            why,
            self.head,
            hop=hop or self.caller.hop,
            attempts=self.attempts,
            sent=self.attempts - self.retrying // _UNSENT,
            detail=detail,
            more=more,
        )
        if self.grpc_status is not None:
            self.grpc_status = str(why.grpc_status)
        self._tell_of_retries(head.fields)
        self._answer(head, body, why.flag)

    def redirect(self, status: int, location: bytes) -> None:
        """Answer with another place to ask (HTTPRoute filter RequestRedirect)."""
        fields: Fields = [(b"location", location, b"location: " + location)]
        if self._route is not None and self._route.response_headers is not None:
            fields = self._route.response_headers.apply(fields)
        self._answer(ResponseHead(status, fields, length=0), b"", "-")

    def _answer(self, head: ResponseHead, body: bytes, flag: str) -> None:
        self.status = head.status
        self._finish(flag)
        if self.answer_fields is not None:
            head.fields += self.answer_fields
        downstream = self.downstream
        downstream.send_head(head)
        if body and self.head.method != b"HEAD":
            downstream.send_data(body, True)
        else:
            downstream.send_end(None)

    # 8. The end: give back, count -----------------------------------------------------------------

    def _end_attempt(self, code: str, status: int = 0) -> None:
        """
        The attempt is over: give back what it held, and tell its endpoint how it went.

        Args:
            code: Why it failed; empty when its answer is complete.
            status: Of its answer.
        """
        endpoint = self.endpoint
        if endpoint is not None:
            endpoint.active -= 1
            self.cluster.requests.count -= 1
            self.tried = (*(self.tried or ()), endpoint)
            self.endpoint = None
            if not self.tunnel:  # that was judged when it opened
                endpoint.judge(status, self.grpc_status, code, self.seconds, self.began)
            self.seconds = 0.0
            if self.second is None:
                self.attempt_due = self.answer_due = inf

    def _end_tunnel(self) -> None:
        """Both directions have ended."""
        self.upstream = None
        self._finish(self.flag)

    def _leave(self, shedding: LoadShedding, now: float) -> None:
        """The app works on this request no more."""
        self.shedding = None
        if self.admitted < inf:
            if self.request_ended:
                shedding.given_up(self.admitted, now)
            else:  # the app has not had all of it
                shedding.forget(self.admitted)
        shedding.release(self.caller.source)

    def _finish(self, flag: str) -> None:  # noqa: C901 - a part is a call
        self.done = True
        endpoint = self.endpoint
        if endpoint is not None:  # `_end_attempt`, without the call
            endpoint.active -= 1
            self.cluster.requests.count -= 1
            self.endpoint = None
            if not self.tunnel:
                code = self.excused if self.retrying & _EXCUSED else ""
                endpoint.judge(self.status, self.grpc_status, code, self.seconds, self.began)
        elif self.tried is not None:
            endpoint = self.tried[-1]
        self.body = None
        if self.retrying & _RETRYING:
            self.cluster.retries.count -= 1
        if self.tunnel:
            self.surroundings.tunnels -= 1
        if self.request_paused:
            self._resume_request()  # what still comes of the body is read and dropped
        surroundings = self.surroundings
        surroundings.exchanges.discard(self)
        route = self._route
        name = "-" if route is None else route.name
        service = self.cluster.service if self.attempts else self._intended()
        version = "" if endpoint is None else endpoint.version
        series = self.caller.series[name, service, version, self.protocol]
        now = surroundings.now()
        series.record(self.status, flag, now - self.started)
        if self.shedding is not None:
            self._leave(self.shedding, now)
        if self.mirrors is not None:
            for mirror in self.mirrors:
                mirror.on_original_ended()
        if self.grpc_status is not None:
            self.caller.grpc_ended(name, service, self.grpc_status)
        if self.timer is not None:
            surroundings.timers.drop(self.timer, self)
            self.timer = None
        if self.joined is not None:
            self._part(self.joined, flag, now)

    def _intended(self) -> str:
        """Return the service that was not asked; none where it was not even chosen."""
        cluster = getattr(self, "cluster", None)
        return "-" if cluster is None else cluster.service

    def _part(self, joined: Context["Exchange"], flag: str, now: float) -> None:
        """Nothing is made for this exchange any more, or this one for another."""
        self.joined = None
        if self.caller.direction == "outbound":
            joined.calls.discard(self)
            return
        table = self.surroundings.propagation
        gone = flag == "DC"
        if self.attempts and (gone or now >= self.deadline):  # the app may be at work on it
            table.give_up(joined, now, gone=gone)
        else:
            table.leave(joined)
