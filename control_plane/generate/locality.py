"""
Where workloads run, by the labels that Kubernetes puts on its nodes, and how near that is.

A workload's labels are its own, so whoever runs it says the zone: the file, or later an injector that
copies it from the node.  How near an endpoint is depends on who asks; so the snapshot of each proxy
has priorities of its own.
"""

from control_plane.resources.model import Workload

ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"


def zone(workload: Workload) -> str:
    """Return the zone that a workload runs in, or nothing."""
    return workload.metadata.labels.get(ZONE, "")


def priority(workload: Workload, asking: Workload) -> int:
    """
    Return 0 for the zone of who asks, 1 for its region, 2 for elsewhere.

    Zones are compared within their region, where both are known.  Who does not say where it runs is
    near to all.
    """
    ours, theirs = asking.metadata.labels, workload.metadata.labels
    if ZONE not in ours and REGION not in ours:
        return 0
    if REGION in ours and REGION in theirs and ours[REGION] != theirs[REGION]:
        return 2
    if ZONE in ours and ours[ZONE] == theirs.get(ZONE):
        return 0
    same_region = REGION in ours and ours[REGION] == theirs.get(REGION)
    if same_region:
        # Without a zone of its own, the region is as near as it gets.
        return 1 if ZONE in ours else 0
    return 2
