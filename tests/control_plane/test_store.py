from control_plane.resources.finding import Finding
from control_plane.store import State, Store


def finding(line: int) -> Finding:
    return Finding(file="f.yaml", line=line, message="wrong")


def test_a_change_makes_the_next_revision() -> None:
    """What differs is put in force under the next revision, whatever revision it carried."""
    store = Store()
    assert store.replace(State(revision=77, findings=(finding(1),)))
    assert store.state.revision == 1
    assert store.state.findings == (finding(1),)


def test_the_same_again_changes_nothing() -> None:
    """Nobody is told, and no revision is spent, when a state equals the one in force."""
    store = Store()
    told: list[int] = []
    store.subscribe(lambda state: told.append(state.revision))
    store.replace(State(findings=(finding(1),)))
    assert not store.replace(State(findings=(finding(1),)))
    assert told == [1]
    assert not Store().replace(State())


def test_subscribers_hear_every_state_until_they_unsubscribe() -> None:
    """A subscriber may also leave while it is being told, and leave twice."""
    store = Store()
    told: list[int] = []

    def once(state: State) -> None:
        told.append(state.revision)
        leave()

    leave = store.subscribe(once)
    others: list[int] = []
    store.subscribe(lambda state: others.append(state.revision))
    store.replace(State(findings=(finding(1),)))
    store.replace(State(findings=(finding(2),)))
    leave()
    assert told == [1]
    assert others == [1, 2]
    assert repr(store) == (
        "<Store revision 2 [0 services, 0 routes, 0 policies, 0 workloads, 1 findings | 1 subscribers]>"
    )
