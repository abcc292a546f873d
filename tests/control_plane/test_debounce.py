from control_plane.debounce import Debounce


def test_quiet_is_waited_for() -> None:
    """Each change starts the wait anew."""
    debounce = Debounce(quiet=0.1, most=10)
    assert debounce.due() is None
    debounce.touch(5.0)
    assert debounce.due() == 5.1
    debounce.touch(5.05)
    assert debounce.due() == 5.05 + 0.1


def test_but_not_for_ever() -> None:
    """A stream of changes that never ends is acted upon after ten seconds."""
    debounce = Debounce(quiet=0.1, most=10)
    for tick in range(200):
        debounce.touch(tick * 0.09)
    assert debounce.due() == 10


def test_what_was_acted_upon_is_forgotten() -> None:
    """The next change starts from the beginning."""
    debounce = Debounce(quiet=0.1, most=10)
    debounce.touch(1)
    debounce.clear()
    assert debounce.due() is None
    debounce.touch(50)
    assert debounce.due() == 50.1
