import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control_plane import rotation
from control_plane.authority import Authority, AuthorityError, RefusedError
from control_plane.ledger import Entry
from control_plane.rotation import Guide, Holder, Lag, holders
from control_plane.snapshots import Proxy, State
from meshproxy import private_file
from meshproxy.private_file import PrivateFileError

HOUR = timedelta(hours=1)


class Scene:
    """An authority, its guide, and a clock; who holds what is set by the test."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime.now(UTC)
        self.authority = Authority(folder, "mesh.local", lambda: self.now)
        self.holders: list[Holder] = []
        self.guide = Guide(self.authority, lambda: self.holders, lambda: HOUR, self.seconds)

    def seconds(self) -> float:
        return self.now.timestamp()

    def holder(
        self, name: str, *, here: bool = True, believes: bool = False, minutes: float = 60.0
    ) -> Holder:
        ends = self.now.timestamp() + minutes * 60
        return Holder(name, here, believes, self.authority.signer.issuer_id, "5e", ends)

    def phase(self) -> str | None:
        under_way = self.authority.rotation
        return None if under_way is None else under_way.phase

    def lagging(self) -> list[tuple[str, bool]]:
        return [(lag.workload, lag.away) for lag in self.guide.lagging()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def believing(some: Iterable[Holder]) -> list[Holder]:
    return [holder._replace(believes=True) for holder in some]


def test_the_new_root_signs_when_everybody_believes_it(scene: Scene) -> None:
    """Who is here and has not acknowledged it is waited for, by name."""
    scene.guide.begin("root")
    scene.holders = [scene.holder("default/a", believes=True), scene.holder("default/b")]
    scene.guide.look()
    assert (scene.phase(), scene.lagging()) == ("spreading", [("default/b", False)])
    scene.holders = believing(scene.holders)
    scene.guide.look()
    assert scene.phase() == "renewing"


def test_who_is_away_is_waited_for_as_long_as_its_certificate_lives(scene: Scene) -> None:
    """Coming back with the old root alone, it could not even find its control plane."""
    scene.guide.begin("root")
    scene.holders = [scene.holder("default/away", here=False, minutes=30)]
    scene.guide.look()
    assert (scene.phase(), scene.lagging()) == ("spreading", [("default/away", True)])
    scene.now += HOUR / 2
    scene.guide.look()
    assert scene.phase() == "renewing"


def test_the_old_root_goes_when_its_last_certificate_has_ended(scene: Scene) -> None:
    """Who still has one is named, for as long as it lives; nothing is hurried."""
    scene.holders = [scene.holder("default/a", believes=True)]
    scene.guide.begin("root")
    scene.guide.look()
    assert (scene.phase(), scene.lagging()) == ("renewing", [("default/a", False)])
    with pytest.raises(RefusedError, match="nobody can hurry that"):
        scene.guide.skip_away()
    renewed = scene.holders[0]._replace(
        issuer=scene.authority.signer.issuer_id, not_after=scene.now.timestamp() + 9000
    )
    scene.holders = [renewed]
    assert scene.lagging() == []
    scene.guide.look()
    assert scene.phase() == "renewing"  # a copy may be anywhere
    scene.now += HOUR
    scene.guide.look()
    assert scene.phase() is None
    assert len(scene.authority.roots()) == 1


def test_going_on_without_the_absent_is_the_operators_word(scene: Scene) -> None:
    """Refused as long as one that is here would be cut off."""
    with pytest.raises(RefusedError, match="no rotation is under way"):
        scene.guide.skip_away()
    scene.guide.begin("root")
    away, here = scene.holder("default/away", here=False), scene.holder("default/here")
    scene.holders = [away, here._replace(problem="cluster/x: no")]
    with pytest.raises(RefusedError, match=r"default/here is here and has not .* cluster/x: no"):
        scene.guide.skip_away()
    scene.holders = [away, *believing([here])]
    scene.guide.skip_away()
    assert scene.phase() == "renewing"


def test_a_rotation_may_be_taken_back(scene: Scene) -> None:
    """At once before the switch; later by signing with the old one again, and waiting."""
    scene.holders = [scene.holder("default/a")]
    scene.guide.begin("root")
    scene.guide.abort()
    assert (scene.phase(), scene.guide.status()) == (None, None)
    scene.guide.begin("issuer")
    scene.holders = believing(scene.holders)
    scene.guide.look()
    scene.guide.abort()
    status = scene.guide.status()
    assert status is not None
    assert (status["what"], status["phase"], status["aborted"]) == ("issuer", "renewing", True)
    scene.now += HOUR
    scene.guide.look()
    assert scene.phase() is None


def test_it_tells_how_far_it_is(scene: Scene) -> None:
    """Phase, since when, and who lags and why."""
    scene.holders = [scene.holder("default/a"), scene.holder("default/b", here=False)]
    scene.guide.begin("root")
    status = scene.guide.status()
    assert status is not None
    assert status["started_at"] == scene.now.timestamp()
    assert status["lagging"] == [
        Lag("default/a", False, "has not acknowledged the new root")._asdict(),
        Lag("default/b", True, "is away; its certificate ends in 3600 s")._asdict(),
    ]


def test_a_switch_that_a_full_disk_cut_off_is_carried_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is room again the old one signs; nothing else can be begun or taken back."""
    scene.guide.begin("root")
    old, real, left = scene.authority.signer, private_file.write, 1

    def write(path: Path, data: bytes) -> None:
        nonlocal left
        if not left:
            raise private_file.PrivateFileError("no space left")
        left -= 1
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(private_file, "write", write)
        for _ in range(2):
            with pytest.raises(private_file.PrivateFileError):
                scene.guide.look()
        assert scene.phase() == "switching"
        assert scene.authority.signer == old
        with pytest.raises(RefusedError, match="half done"):
            scene.guide.abort()
    scene.guide.look()
    assert scene.phase() == "renewing"
    assert scene.authority.signer != old


async def test_what_goes_wrong_is_logged_and_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is: the control plane has more to do."""
    looks = iter([PrivateFileError("no space"), AuthorityError("damaged"), ZeroDivisionError()])

    def look() -> None:
        raise next(looks, asyncio.CancelledError())

    monkeypatch.setattr(rotation, "LOOK", 0.0)
    monkeypatch.setattr(scene.guide, "look", look)
    with pytest.raises(asyncio.CancelledError):
        await scene.guide.run()
    assert caplog.text.count("the rotation cannot go on") == 3


def proxy(workload: str, state: State = State.SYNCED, trust: str = "t1") -> Proxy:
    return Proxy(
        workload=workload,
        state=state,
        reason="no" if state is State.REFUSED else "",
        trust=trust,
        certificate_issuer="shown",
        certificate_serial="51",
        certificate_not_after=90.0,
    )


def issued(workload: str) -> Entry:
    return Entry(workload=workload, serial="50", issuer="issued", root="r", not_after=100.0)


def test_what_a_proxy_shows_counts_more_than_what_it_was_sent() -> None:
    """Of who is away, what was issued last; of who is no workload any more, nothing."""
    found = holders(
        {name: issued(name) for name in ("a/here", "a/away", "a/gone", "a/never")},
        {
            "a/here": proxy("a/here"),
            "a/away": proxy("a/away", State.DISCONNECTED),
            "a/gone": proxy("a/gone"),
            "a/stale": proxy("a/stale", State.REFUSED, trust="t0"),
        },
        lambda workload: workload != "a/gone",
        "t1",
    )
    assert found == [
        Holder("a/away", False, True, "issued", "50", 100.0),
        Holder("a/here", True, True, "shown", "51", 90.0),
        Holder("a/never", False, False, "issued", "50", 100.0),
        Holder("a/stale", True, False, "shown", "51", 90.0, "no"),
    ]


def test_a_changed_file_of_roots_is_noticed(scene: Scene, tmp_path: Path) -> None:
    """The guide looks at it as often as at everything else."""
    told: list[None] = []
    scene.authority.on_changed = lambda: told.append(None)
    other = Authority(tmp_path / "other", "mesh.local").roots()[0]
    path = tmp_path / "roots.pem"
    path.write_text(path.read_text() + other)
    scene.guide.look()
    assert told
    assert other in scene.authority.roots()
