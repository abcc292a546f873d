"""Medians, ratios and verdicts, and how they are told."""

from bench.results import Results, as_json, as_text, spread, table, verdicts
from bench.workloads import LAG, Metric, Turn, Workload


def never(_: Turn) -> dict[str, float]:
    raise AssertionError("nothing is measured here")


def workload(name: str = "h1-small", **more: str | bool) -> Workload:
    metrics = (Metric("cpu_us", "CPU us/request"), Metric("rps", "requests/s", better="more"))
    return Workload(name, "h1", "small requests", metrics, never, **more)  # type: ignore[arg-type]


def results(**samples: list[tuple[float, float]]) -> Results:
    """Return those of a workload with everything armed and with little; `_` in names is a dash."""
    found = Results(workload(twice=True))
    for peer, rounds in samples.items():
        found.samples[peer.replace("_", "-")] = [{"cpu_us": cpu, "rps": rps} for cpu, rps in rounds]
    return found


def test_spread_is_median_least_greatest() -> None:
    """Of an odd number of rounds the middle one counts, of an even one the mean of both."""
    assert spread([90, 76, 88], 0) == "88 [76-90]"
    assert spread([1, 2], 2) == "1.50 [1.00-2.00]"


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """A round in which the machine was slow for both says as much as one in which it was fast."""
    found = results(ours=[(50, 1), (400, 1), (60, 1)], envoy=[(100, 1), (800, 1), (100, 1)])
    assert found.ratio("cpu_us", "envoy") == 0.5


def test_a_round_without_one_of_both_has_no_ratio() -> None:
    """Where a peer failed, nothing is compared; without any common round there is no ratio."""
    found = results(ours=[(50, 1), (60, 1)], envoy=[(100, 1), (100, 1)])
    found.samples["envoy"][0] = None
    assert found.ratio("cpu_us", "envoy") == 0.6
    found.samples["envoy"][1] = None
    assert found.ratio("cpu_us", "envoy") is None
    assert not found.sound


def test_verdicts_look_in_the_right_direction() -> None:
    """CPU has a greatest ratio, throughput a least one."""
    found = results(ours=[(40, 2500)], envoy_armed=[(100, 1000)])
    cpu, rps = (verdicts(found, metric)[0] for metric in found.workload.metrics)
    assert (cpu["ratio"], cpu["met"], cpu["reach"]) == (0.4, True, "<= 0.5")
    assert (rps["ratio"], rps["met"], rps["reach"]) == (2.5, True, ">= 1.9")
    slow = results(ours=[(60, 1800)], envoy_armed=[(100, 1000)])
    assert [verdicts(slow, metric)[0]["met"] for metric in slow.workload.metrics] == [False, False]


def test_each_is_compared_with_its_like() -> None:
    """Ours armed with Envoy armed, and also with Envoy that does less; head and verdicts say so."""
    found = results(
        ours=[(60, 1)], envoy_armed=[(120, 1)], ours_bare=[(55, 1)], envoy=[(100, 1)], haproxy=[(50, 1)]
    )  # fmt: skip
    lines = as_text([found]).splitlines()
    assert lines[1].split("  ")[-1] == "reach"
    head = (
        "ours (/envoy-armed) envoy-armed (/envoy) ours-bare (/envoy) envoy haproxy (/envoy) reach"
    )
    assert lines[1].split() == head.split()
    figures = "60 [60-60] (0.50) 120 [120-120] (1.20) 55 [55-55] (0.55) 100 [100-100]"
    assert figures in " ".join(lines[2].split())
    assert lines[2].endswith("<= 0.5 met; <= 0.5 x envoy MISSED (0.60)")
    armed, less = verdicts(found, found.workload.metrics[0])
    assert (armed["peer"], armed["base"], armed["ratio"]) == ("ours", "envoy-armed", 0.5)
    assert (less["peer"], less["base"], less["ratio"]) == ("ours", "envoy", 0.6)
    told = as_json([found])["workloads"]["h1-small"]["peers"]
    assert {peer: about["base"] for peer, about in told.items()} == {
        "ours": "envoy-armed",
        "envoy-armed": "envoy",
        "ours-bare": "envoy",
        "envoy": None,
        "haproxy": "envoy",
    }
    assert told["envoy"]["metrics"]["cpu_us"]["ratio"] is None


def test_no_verdict_without_the_base() -> None:
    """Without Envoy nobody can say whether a target is reached; that is not a miss."""
    found = results(ours=[(40, 2500)], envoy=[(100, 1000)])
    assert verdicts(found, found.workload.metrics[0])[0]["met"] is None
    assert "<= 0.5 ?" in as_text([found])


def test_the_table_says_what_is_missing_and_what_failed() -> None:
    """A peer without figures is named with its reason, and so are failed requests."""
    found = results(ours=[(40, 2500)], envoy_armed=[(100, 1000)])
    found.remarks["haproxy"] = "haproxy is not installed"
    found.samples["envoy-armed"] = [{"cpu_us": 100, "rps": 1000, "failed": 7}]
    text = as_text([found])
    assert "40 [40-40] (0.40)" in text
    assert "<= 0.5 met" in text
    assert "haproxy: haproxy is not installed" in text
    assert "envoy-armed: 7 requests failed" in text
    assert not found.sound


def test_a_single_hop_is_judged_against_two() -> None:
    """The ratio to who is not the base of the column stands beside its verdict."""
    found = Results(workload("single", base="nginx"))
    for peer, cpu in (("ours", 50.0), ("nginx", 30.0), ("haproxy", 25.0)):
        found.samples[peer] = [{"cpu_us": cpu, "rps": 1}]
    assert "<= 1.6 MISSED; <= 2.4 x haproxy met (2.00)" in as_text([found])


def test_a_limit_of_our_own_is_judged_in_the_worst_round() -> None:
    """Whatever others do, and although they tell nothing of it."""
    found = results(ours=[(40, 2500), (40, 2500)], envoy=[(100, 1000), (100, 1000)])
    for late, met in ((20.0, True), (75.0, False)):
        found.samples["ours"][1] = {"cpu_us": 40, "rps": 2500, "lag_ms": late}
        [verdict] = verdicts(found, LAG)
        assert (verdict["ratio"], verdict["met"], verdict["reach"]) == (None, met, "<= 50")
    line = next(line for line in as_text([found]).splitlines() if LAG.title in line)
    assert line.split()[-6:] == ["75.0", "[75.0-75.0]", "-", "<=", "50", "MISSED"]


def test_json_has_every_value() -> None:
    """For programs: medians, ranges, ratios, the values of all rounds, and the verdicts."""
    found = as_json([results(ours=[(50, 1), (40, 1)], envoy_armed=[(100, 1), (100, 1)])])
    ours = found["workloads"]["h1-small"]["peers"]["ours"]["metrics"]["cpu_us"]
    assert ours == {
        "title": "CPU us/request",
        "median": 45,
        "least": 40,
        "greatest": 50,
        "ratio": 0.45,
        "values": [50, 40],
    }
    assert {target["metric"] for target in found["targets"]} == {"cpu_us", "rps", "lag_ms"}


def test_table_aligns_figures_to_the_right() -> None:
    """The first and the last column are text, the others are figures."""
    lines = table([["metric", "n", "reach"], ["cpu", "100", "met"]]).splitlines()
    assert lines == ["metric    n  reach", "cpu     100  met"]
