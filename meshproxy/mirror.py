"""
A mirrored request: to its endpoint an exchange like others, to the original somebody who only listens.

    Exchange ──on_request_*──▶ Mirror ──send_*──▶ upstream stream
                               Mirror ◀─on_response_*── upstream stream      …and no further

It speaks the words of an exchange towards the connections (`upstream/`), but never tells its original
anything: nothing that happens here, however slow or broken, has a way back.  The rules and limits are
in `policies/mirroring.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from meshproxy.codec import grpc
from meshproxy.message import Field, Fields, RequestHead, ResponseHead
from meshproxy.policies.limits import Limit
from meshproxy.policies.mirroring import DROPPED, TIMEOUT, Load, copy_of
from meshproxy.policies.outcome import SHED, shed
from meshproxy.policies.propagation import criticality_field


class Upstream(Protocol):
    """What the exchange knows as `neighbours.Upstream`, as far as this file does."""

    blocked: bool

    def send_head(self, head: RequestHead) -> None: ...
    def send_data(self, data: bytes, last: bool = False) -> None: ...
    def send_end(self, trailers: Fields | None) -> None: ...
    def reset(self) -> None: ...


class Endpoint(Protocol):
    """One server.  To it, a mirrored request is an exchange."""

    active: int

    def acquire(self, exchange: Any) -> None: ...
    def forget(self, exchange: Any) -> None: ...
    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None: ...


class Cluster(Protocol):
    """Where the copies go."""

    service: str
    mirrors: Load
    mtls: bool
    requests: Limit

    # Whom to avoid: nobody, as each copy is sent once; and what to go by: chance.
    def pick(self, avoid: None, key: None) -> Any: ...
    def admits(self, limit: Limit) -> bool: ...
    def refusal(self, limit: Limit) -> tuple[str, str, Sequence[Field]]: ...


class Surroundings(Protocol):
    """As in `neighbours.py`."""

    now: Callable[[], float]

    @property
    def timers(self) -> Any: ...
    def mirrored(self, service: str, outcome: str) -> None: ...


class Mirror:
    """
    One copy of one request.

    Attributes:
        attempts: One: to the limits of its endpoint, no retry.
        head: Of the copy.
        began: When its endpoint was picked.
        done: It has ended, one way or another.
        due: When its answer is waited for no longer.
    """

    __slots__ = (
        "_cluster",
        "_dropped",
        "_ended",
        "_endpoint",
        "_grpc",
        "_held",
        "_held_size",
        "_seconds",
        "_shed",
        "_status",
        "_surroundings",
        "_timer",
        "_trailers",
        "_upstream",
        "began",
        "done",
        "due",
        "head",
    )  # fmt: skip

    attempts = 1
    began: float
    due: float

    def __init__(self, head: RequestHead, cluster: Cluster, surroundings: Surroundings) -> None:
        self.head = copy_of(head)
        self.head.fields.append(criticality_field("sheddable"))
        self.done = False
        self._cluster = cluster
        self._surroundings = surroundings
        self._endpoint: Endpoint | None = None
        self._upstream: Upstream | None = None
        self._timer: Any = None
        # The request, as far as it waits
        self._held: list[bytes] = []
        self._held_size = 0
        self._ended = head.length is None
        self._trailers: Fields | None = None
        # The answer
        self._status = 0
        self._shed = False  # as less important than others
        self._seconds = 0.0  # until its head
        self._grpc: str | None = grpc.NO_STATUS if grpc.is_grpc(head.method, head.fields) else None
        self._dropped = 0

    # 1. The original says where it goes, and what ------------------------------------------------

    def begin(self) -> None:
        """Find an endpoint; the original has just done the same."""
        cluster, surroundings = self._cluster, self._surroundings
        if not cluster.mirrors.admit():
            self.done = True
            surroundings.mirrored(cluster.service, "too-many")
            return
        requests = cluster.requests
        endpoint: Endpoint | None = None
        if requests.count < requests.ceiling or cluster.admits(requests):
            endpoint = cluster.pick(None, None)
        if endpoint is None:
            self._finish(cluster.refusal(requests)[0])
            return
        self._endpoint = endpoint
        requests.count += 1
        endpoint.active += 1
        self.began = surroundings.now()
        if self._ended:
            self._wait_for_answer()
        endpoint.acquire(self)

    def on_request_data(self, data: bytes, last: bool = False) -> None:
        if self.done:
            return
        upstream = self._upstream
        if upstream is not None and not upstream.blocked and not self._held:
            upstream.send_data(data, last)
        elif self._cluster.mirrors.hold(len(data), self._held_size):
            self._held.append(data)
            self._held_size += len(data)
        else:
            self.give_up("overflow")
            return
        if last:
            self._ended = True
            self._wait_for_answer()

    def on_request_end(self, trailers: Fields | None) -> None:
        if self.done or self._ended:
            return
        self._ended = True
        self._trailers = trailers
        if self._upstream is not None and not self._held:
            self._upstream.send_end(trailers)
        self._wait_for_answer()

    def on_original_ended(self) -> None:
        """Nothing more comes from there."""
        if not self.done and not self._ended:
            self.give_up("unfinished")

    def _wait_for_answer(self) -> None:
        self.due = self._surroundings.now() + TIMEOUT
        self._timer = self._surroundings.timers.add(self)

    # 2. The endpoint takes it, when it likes -----------------------------------------------------

    def on_upstream_ready(self, upstream: Upstream) -> None:
        self._upstream = upstream
        upstream.send_head(self.head)
        if self.head.length is not None:
            self._send_held()

    def on_upstream_failed(self, code: str) -> None:
        self._end_attempt(code)
        self._finish(code)

    def on_upstream_blocked(self) -> None:
        """What comes from now on is held."""

    def on_upstream_writable(self) -> None:
        if self._held:
            self._send_held()

    def _send_held(self) -> None:
        upstream = self._upstream
        assert upstream is not None
        taken = 0
        for data in self._held:
            if upstream.blocked:
                break
            upstream.send_data(data)
            taken += 1
            self._release(len(data))
        del self._held[:taken]
        if self._ended and not self._held:
            upstream.send_end(self._trailers)

    def _release(self, size: int) -> None:
        self._held_size -= size
        self._cluster.mirrors.held -= size

    # 3. The answer: read, and dropped ------------------------------------------------------------

    def on_response_informational(self, head: ResponseHead) -> None:
        """Nobody waits for one."""

    def on_response_head(self, head: ResponseHead) -> None:
        self._status = head.status
        self._shed = self._cluster.mtls and shed(head.mesh_fields)
        self._seconds = self._surroundings.now() - self.began
        if self._grpc is not None:
            self._grpc = grpc.status_of(head.fields) or self._grpc

    def on_response_data(self, data: bytes, last: bool = False) -> None:
        self._dropped += len(data)
        if last:
            self.on_response_end(None)
        elif self._dropped > DROPPED and not self.done:
            self.give_up(self._outcome)

    def on_response_end(self, trailers: Fields | None) -> None:
        if self.done:
            return
        if trailers is not None and self._grpc is not None:
            self._grpc = grpc.status_of(trailers) or self._grpc
        self._upstream = None
        self._end_attempt(SHED if self._shed else "")
        self._finish(self._outcome)

    @property
    def _outcome(self) -> str:
        if self._grpc is not None:
            return f"grpc-{self._grpc}"
        return f"{self._status // 100}xx"

    # 4. The end ----------------------------------------------------------------------------------

    def on_response_reset(self, code: str, *, reused: bool) -> None:  # noqa: ARG002 - the word's shape
        if not self.done:
            self._upstream = None
            self._end_attempt(code)
            self._finish(code)

    def on_due(self) -> None:
        self._timer = None
        self.give_up("timeout", "downstream-closed" if self._status else "deadline-exceeded")

    def give_up(self, outcome: str, code: str = "downstream-closed") -> None:
        """
        Want no answer any more.

        Args:
            outcome: What is counted.
            code: What the endpoint is told: that nobody waits any more is not its fault.
        """
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.reset()
        elif self._endpoint is not None:
            self._endpoint.forget(self)
        self._end_attempt(code)
        self._finish(outcome)

    def _end_attempt(self, code: str) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.active -= 1
            self._cluster.requests.count -= 1
            endpoint.judge(self._status, self._grpc, code, self._seconds, self.began)

    def _finish(self, outcome: str) -> None:
        self.done = True
        self._release(self._held_size)
        self._held.clear()
        self._cluster.mirrors.active -= 1
        if self._timer is not None:
            self._surroundings.timers.drop(self._timer, self)
            self._timer = None
        self._surroundings.mirrored(self._cluster.service, outcome)
