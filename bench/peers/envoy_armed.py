"""
Envoy with everything armed that `bench/armed.py` arms for meshproxy, as far as Envoy has it.

The pair of `envoy.py`, and on the same sides with the same figures: at A an abort and a mirror of
next to no requests, a retry budget, a timeout for each attempt, limits and outlier detection as ours
are; at B a rate limit for each caller and adaptive concurrency.  Both look at every request and mind
none of them.  What has no counterpart on one side or the other, `bench/README.md` says.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench import armed
from bench.site import Identity, Service
from meshproxy.contract.policies import (
    LimitsSpec,
    OutlierSpec,
    RateLimitSpec,
    RetryBudgetSpec,
    RetrySpec,
    SheddingSpec,
)

from . import Side
from .envoy import Envoy, Json, typed

_NEVER: Final = {"numerator": 1, "denominator": "MILLION"}
"""The least share that Envoy can say, but none."""

_ALWAYS: Final = {"default_value": {"numerator": 100}}
_BUCKETS: Final = 10_000
"""Of callers at once, as many as ours has."""


class EnvoyArmed(Envoy):
    name = "envoy-armed"

    def config(
        self, side: Side, services: Sequence[Service], identity: Identity, root: Path, admin: int
    ) -> Json:
        """Return the bootstrap of one side, with all that is armed there."""
        whole = super().config(side, services, identity, root, admin)
        resources = whole["static_resources"]
        for cluster in resources["clusters"]:
            if side == "a":
                cluster |= _cluster(armed.A_CLUSTER)
            else:
                del cluster["outlier_detection"]  # ours has none at the app's side either
        for manager in _managers(resources["listeners"]):
            manager["http_filters"][-1:-1] = [_fault()] if side == "a" else [_rate_limit(), _shed()]
            manager["stream_idle_timeout"] = _time(armed.B_CLUSTER["stream_idle_timeout"])
            if side == "a":
                for host in manager["route_config"]["virtual_hosts"]:
                    for route in host["routes"]:
                        route["route"] |= _route(route["route"]["cluster"])
        return whole


def _managers(listeners: Sequence[Json]) -> list[Json]:
    """Return what is said of each listener's HTTP; those of opaque TCP have none."""
    filters = [one["filter_chains"][0]["filters"][0]["typed_config"] for one in listeners]
    return [one for one in filters if "http_filters" in one]


# Outbound -----------------------------------------------------------------------------------------


def _cluster(policies: dict[str, Any]) -> Json:
    limits: LimitsSpec = policies["limits"]
    each: LimitsSpec = policies["endpoint_limits"]
    budget: RetryBudgetSpec = policies["retry_budget"]
    outliers: OutlierSpec = policies["outliers"]
    return {
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": limits.connections,
                    "max_pending_requests": limits.pending,
                    "max_requests": limits.requests,
                    # Instead of `max_retries`, which Envoy ignores beside it.
                    "retry_budget": {
                        "budget_percent": {"value": budget.percent},
                        "min_retry_concurrency": budget.min_count,
                    },
                }
            ],
            "per_host_thresholds": [{"max_connections": each.connections}],
        },
        "outlier_detection": {
            "consecutive_5xx": outliers.consecutive_5xx,
            "consecutive_gateway_failure": outliers.consecutive_gateway_errors,
            "enforcing_consecutive_gateway_failure": 100,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": outliers.consecutive_local_failures,
            "failure_percentage_threshold": int(outliers.failure_percent or 0),
            "enforcing_failure_percentage": 100,
            # Its statistics of success rates are on unless told otherwise.
            "interval": _time(outliers.interval),
            "base_ejection_time": _time(outliers.base_ejection),
            "max_ejection_time": _time(outliers.max_ejection),
        },
    }


def _route(cluster: str) -> Json:
    policies = armed.a_route(cluster)
    retry: RetrySpec = policies["retry"]
    return {
        "timeout": _time(policies["request_timeout"]),
        "max_stream_duration": {
            "max_stream_duration": _time(armed.A_CLUSTER["max_stream_duration"])
        },
        "retry_policy": {
            # Ours by Envoy's names; a timeout of an attempt is a 504 to it.
            "retry_on": "5xx,reset,connect-failure,unavailable,retriable-status-codes",
            "retriable_status_codes": list(retry.codes),
            "num_retries": retry.attempts - 1,
            "per_try_timeout": _time(retry.per_try_timeout or 0),
            "retry_back_off": {
                "base_interval": _time(retry.backoff),
                "max_interval": _time(retry.max_backoff),
            },
        },
        "request_mirror_policies": [
            {
                "cluster": cluster,
                "runtime_fraction": {"default_value": _NEVER, "runtime_key": "mirror"},
            }
        ],
    }


def _fault() -> Json:
    # 200, so that a load does not take for a failure what was done on purpose: one in a million
    # requests does happen in a long run.
    return typed(
        "envoy.filters.http.fault",
        "filters.http.fault.v3.HTTPFault",
        abort={"http_status": 200, "percentage": _NEVER},
    )


# Inbound ------------------------------------------------------------------------------------------


def _rate_limit() -> Json:
    [limit] = armed.B_ROUTE["rate_limits"]
    return typed(
        "envoy.filters.http.local_ratelimit",
        "filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="each",
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        # Ours says what is left with each answer, too.
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        # By the SPIFFE ID that the handshake has proved.  An entry without a value is a bucket for
        # each value that comes.
        rate_limits=[
            {
                "actions": [
                    {"extension": typed("caller", "matching.common_inputs.ssl.v3.UriSanInput")}
                ]
            }
        ],
        descriptors=[{"entries": [{"key": "caller"}], "token_bucket": _bucket(limit)}],
        max_dynamic_descriptors=_BUCKETS,
        # For who has none: nobody here, so that requests would fail if that did not work.
        token_bucket={"max_tokens": 1, "fill_interval": "1s"},
        always_consume_default_token_bucket=False,
    )


def _bucket(limit: RateLimitSpec) -> Json:
    return {
        "max_tokens": limit.burst,
        "tokens_per_fill": limit.requests,
        "fill_interval": _time(limit.interval),
    }


def _shed() -> Json:
    """The same gradient of latency as ours; it begins at the least limit, ours at the greatest."""
    shedding: SheddingSpec = armed.B_CLUSTER["shedding"]
    return typed(
        "envoy.filters.http.adaptive_concurrency",
        "filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        gradient_controller_config={
            "concurrency_limit_params": {
                "max_concurrency_limit": shedding.max_limit,
                "concurrency_update_interval": "0.1s",
            },
            "min_rtt_calc_params": {"interval": "60s", "min_concurrency": shedding.min_limit},
        },
    )


def _time(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g}s"
