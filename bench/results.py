"""
Samples of all rounds, condensed: medians, least and greatest values, ratios, verdicts.

A ratio is the median over the rounds of the ratio within each round: the machine is faster in one
round than in another, but rarely within one.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .targets import targets
from .workloads import OURS, Metric, Workload

FAILED = "failed"


@dataclass
class Results:
    """
    What one workload has given.

    Attributes:
        samples: By peer, one entry for each round; None where the peer has failed in it.
        remarks: By peer, why it has no or not all figures.
    """

    workload: Workload
    samples: dict[str, list[Mapping[str, float] | None]] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)

    def values(self, peer: str, metric: str) -> list[float]:
        rounds = self.samples.get(peer, [])
        return [one[metric] for one in rounds if one is not None and metric in one]

    def ratio(self, metric: str, base: str | None, peer: str = OURS) -> float | None:
        if base is None:
            return None
        pairs = zip(self.samples.get(peer, []), self.samples.get(base, []), strict=False)
        ratios = [
            mine[metric] / theirs[metric]
            for mine, theirs in pairs
            if mine is not None and theirs is not None and theirs.get(metric, 0) > 0
        ]
        return statistics.median(ratios) if ratios else None

    def failed_requests(self, peer: str) -> int:
        return int(sum((one or {}).get(FAILED, 0) for one in self.samples.get(peer, [])))

    @property
    def sound(self) -> bool:
        return not any(
            None in rounds or self.failed_requests(peer) for peer, rounds in self.samples.items()
        )


# A table for people -------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int) -> str:
    """`88 [76-97]`: the median, the least and the greatest."""
    median, least, greatest = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} [{least:.{digits}f}-{greatest:.{digits}f}]"


def verdicts(results: Results, metric: Metric) -> list[dict[str, Any]]:
    """Judge one metric by its targets; `met` is None where a peer has no figures."""
    found = []
    for target in targets(results.workload.name, metric.key):
        if target.peer not in results.samples:
            continue
        ratio, figure = None, max(results.values(target.peer, metric.key), default=None)
        if target.base is not None:
            figure = ratio = results.ratio(metric.key, target.base, target.peer)
        found.append(
            {
                "workload": results.workload.name,
                "metric": target.metric,
                "peer": target.peer,
                "base": target.base,
                "reach": target.text(),
                "heading": target.heading,
                "ratio": ratio,
                "met": None if figure is None else target.met(figure),
            }
        )
    return found


def as_text(all_results: Sequence[Results]) -> str:
    return "\n\n".join(_section(results) for results in all_results)


def _section(results: Results) -> str:
    peers = list(results.samples)
    bases = {peer: results.workload.base_of(peer) for peer in peers}
    lines = [
        ["", *(f"{peer} (/{base})" if base else peer for peer, base in bases.items()), "reach"]
    ]
    for metric in results.workload.rows:
        cells = [metric.title]
        for peer in peers:
            values = results.values(peer, metric.key)
            ratio = results.ratio(metric.key, bases[peer], peer)
            cell = spread(values, metric.digits) if values else "-"
            cells.append(cell if ratio is None else f"{cell} ({ratio:.2f})")
        cells.append("; ".join(_verdict(one, results) for one in verdicts(results, metric)))
        lines.append(cells)
    text = [f"{results.workload.name}: {results.workload.title}", table(lines)]
    text += [f"  {peer}: {remark}" for peer, remark in results.remarks.items()]
    text += [
        f"  {peer}: {count} requests failed" for peer in peers if (count := results.failed_requests(peer))
    ]  # fmt: skip
    return "\n".join(text)


def _verdict(found: Mapping[str, Any], results: Results) -> str:
    """Say whose it is, and to whom the ratio is, where that is not what the table's head says."""
    usual = found["base"] in (results.workload.base_of(found["peer"]), None)
    reach = found["reach"] if usual else f"{found['reach']} x {found['base']}"
    if found["peer"] != OURS:
        reach = f"{found['peer']} {reach}"
    if found["met"] is None:
        return f"{reach} ?"
    ratio = "" if usual else f" ({found['ratio']:.2f})"
    return f"{reach} {'met' if found['met'] else 'MISSED'}{ratio}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Align columns: the first and the last to the left, figures to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number in (0, last) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


# The same for programs ----------------------------------------------------------------------------


def as_json(all_results: Sequence[Results]) -> dict[str, Any]:
    return {
        "workloads": {results.workload.name: _workload(results) for results in all_results},
        "targets": [
            verdict
            for results in all_results
            for metric in results.workload.rows
            for verdict in verdicts(results, metric)
        ],
    }


def _workload(results: Results) -> dict[str, Any]:
    workload = results.workload
    return {
        "title": workload.title,
        "base": workload.base,
        "remarks": results.remarks,
        "peers": {
            peer: {
                "base": workload.base_of(peer),
                "failed": results.failed_requests(peer),
                "metrics": {
                    metric.key: {
                        "title": metric.title,
                        "median": statistics.median(values),
                        "least": min(values),
                        "greatest": max(values),
                        "ratio": results.ratio(metric.key, workload.base_of(peer), peer),
                        "values": values,
                    }
                    for metric in workload.rows
                    if (values := results.values(peer, metric.key))
                },
            }
            for peer in results.samples
        },
    }
