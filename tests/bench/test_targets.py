"""The table of targets: each belongs to something that is measured."""

from bench.targets import ANY, TARGETS, Target
from bench.workloads import everything


def test_every_target_is_measured() -> None:
    """No target names a workload or a metric that nobody measures: it would never be judged."""
    measured = {
        (name, metric.key)
        for one in everything()
        for metric in one.rows
        for name in (one.name, ANY)
    }
    assert {(target.workload, target.metric) for target in TARGETS} <= measured


def test_directions_agree_with_the_metrics() -> None:
    """A least ratio is asked of what is the better the more there is of it, and of nothing else."""
    better = {
        (name, metric.key): metric.better
        for one in everything()
        for metric in one.rows
        for name in (one.name, ANY)
    }
    for target in TARGETS:
        assert target.at_least == (better[target.workload, target.metric] == "more"), target


def test_a_limit_includes_itself() -> None:
    """Exactly the figure that must be reached is reached."""
    assert Target("h1-small", "cpu_us", 0.5, 0.35).met(0.5)
    assert not Target("h1-small", "cpu_us", 0.5, 0.35).met(0.51)
    assert Target("h1-small", "rps", 1.9, 2.5, at_least=True).met(1.9)


def test_names_and_groups_do_not_collide() -> None:
    """Names are unique, and what is asked for by a group's name is what the group holds."""
    names = [one.name for one in everything()]
    assert len(names) == len(set(names))
    for one in everything():
        namesake = [other for other in everything() if other.name == one.group]
        assert not namesake or [o.name for o in everything() if o.group == one.group] == [one.group]


def test_a_target_is_of_who_takes_part() -> None:
    """Both peers of a target are in its workload; where an armed Envoy is, it is not the only one."""
    by_name = {one.name: one for one in everything()}
    for target in TARGETS:
        if target.workload == ANY or target.base is None:
            continue
        workload = by_name[target.workload]
        assert workload.wants(target.peer), target
        assert workload.wants(target.base), target
        bases = {
            one.base
            for one in TARGETS
            if (one.workload, one.metric) == (target.workload, target.metric)
        }
        assert bases == {"envoy-armed", "envoy"} or not workload.twice, target
