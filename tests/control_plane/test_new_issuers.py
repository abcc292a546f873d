"""A policy waits for the keys of its issuer, a moment, and nothing else waits with it."""

import asyncio
from pathlib import Path

from aiohttp import web

from control_plane.key_sets import KeySets
from control_plane.new_issuers import NewIssuers, View
from control_plane.store import State
from tests.control_plane.test_key_sets import OLD, key_set, running, serving, state
from tests.helpers.mesh import workload
from tests.helpers.plane import until

CONFIG = """
apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {mtls: MTLS, jwks: {allowedHosts: [HOST]}}
"""
USERS = """
apiVersion: meshproxy.io/v1alpha1
kind: RequestAuthentication
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: catalog}}
  jwtRules: [{issuer: NAME, jwksUri: "http://HOST/NAME"}]
"""
DENY = """
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: NAME}
spec: {action: DENY, rules: [{}]}
"""
CATALOG, REVIEWS = "default/catalog", "default/reviews"
BOTH = (workload("catalog"), workload("reviews"))


class Waiting:
    """Key sets and who waits for them, at a server that answers when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = ""
        self.now = 100.0
        self.go = asyncio.Event()
        self.sets = KeySets(folder / "key-sets", [folder])
        self.new = NewIssuers(self.sets, patience=3.0, clock=lambda: self.now)
        self.sets.on_changed = lambda: self.new.follow(self.state)
        self.state = State()

    async def answer(self, request: web.Request) -> web.Response:
        await self.go.wait()
        return web.Response(text="none" if request.path == "/broken" else key_set(OLD))

    def follow(self, *texts: str, mtls: str = "STRICT") -> State:
        config = CONFIG.replace("HOST", self.host).replace("MTLS", mtls)
        text = "---\n".join([config, *texts]).replace("HOST", self.host)
        self.state = state(text, self.folder)
        self.sets.follow(self.state)
        self.new.follow(self.state)
        return self.state

    def policies(self, workload: str) -> set[str] | None:
        view = self.new.view(workload)
        return None if view is None else {one.metadata.name for one in view.state.security.values()}


def users(name: str) -> str:
    return USERS.replace("NAME", name)


def deny(name: str) -> str:
    return DENY.replace("NAME", name)


async def test_until_the_keys_are_here_what_held_before_holds(tmp_path: Path) -> None:
    """For those that the policy is about, with all that was saved with it; others have it at once."""
    it = Waiting(tmp_path)
    async with serving(it.answer) as it.host, running(it.sets):
        old = it.follow(*BOTH, deny("first"))
        assert it.new.view(CATALOG) == View(old, {})
        new = it.follow(*BOTH, deny("second"), users("id"))
        assert it.policies(CATALOG) == {"first"}
        assert it.new.view(REVIEWS) == View(new, {})
        (finding,) = it.new.findings()
        assert "waits for the first answer of an issuer, 3 s at most" in finding.message
        assert "hold for 1 of its workloads" in finding.message
        it.go.set()
        await until(lambda: it.policies(CATALOG) == {"second", "id"})
        assert it.new.view(CATALOG) == View(new, it.sets.known)
        assert list(it.new.findings()) == []
        assert repr(it.new) == "<NewIssuers 0 workloads waiting>"


async def test_an_answer_without_keys_ends_the_waiting_too(tmp_path: Path) -> None:
    """Then no token of the issuer is right: the policy fails closed."""
    it = Waiting(tmp_path)
    async with serving(it.answer) as it.host, running(it.sets):
        it.follow(*BOTH)
        it.follow(*BOTH, users("broken"))
        assert it.policies(CATALOG) == set()
        it.go.set()
        await until(lambda: it.policies(CATALOG) == {"broken"})
        assert it.sets.known == {}


async def test_nobody_waits_for_longer_than_that(tmp_path: Path) -> None:
    """Not by another new address either, saved just before the time is up; `on_over` tells it."""
    it = Waiting(tmp_path)
    told = asyncio.Event()
    it.new.on_over = told.set
    async with serving(it.answer) as it.host, running(it.sets):
        it.follow(*BOTH)
        it.follow(*BOTH, users("one"))
        it.now += 2.9
        it.follow(*BOTH, users("one"), users("two"))
        assert it.policies(CATALOG) == set()
        task = asyncio.create_task(it.new.run())
        await asyncio.sleep(0)
        it.now += 0.09
        it.follow(*BOTH, users("one"), users("two"), deny("all"))
        assert it.policies(CATALOG) == set()
        it.now += 0.01
        await told.wait()
        assert it.policies(CATALOG) == {"one", "two", "all"}
        it.follow(*BOTH, users("two"), users("three"))
        assert it.policies(CATALOG) == {"two", "three"}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_address_that_changes_leaves_the_old_keys_meanwhile(tmp_path: Path) -> None:
    """The policy of before goes on with the keys of before, though nobody asks for them any more."""
    it = Waiting(tmp_path)
    it.go.set()
    async with serving(it.answer) as it.host, running(it.sets):
        it.follow(*BOTH, users("id"))
        await until(lambda: it.sets.known)
        before = it.new.view(CATALOG)
        it.go.clear()
        it.follow(*BOTH, users("id").replace("/id", "/moved"))
        assert it.sets.known == {}
        after = it.new.view(CATALOG)
        assert before is not None
        assert after is not None
        assert after.key_sets == before.key_sets
        assert after.state.security == before.state.security


async def test_where_the_old_policies_would_mean_something_else_the_old_snapshot_stays(
    tmp_path: Path,
) -> None:
    """A new workload, one with other labels, other settings of the mesh: nothing is told meanwhile."""
    it = Waiting(tmp_path)
    async with serving(it.answer) as it.host, running(it.sets):
        for before, after, mtls in (
            ((), BOTH, "STRICT"),
            ((workload("catalog").replace("app: catalog", "app: other"),), BOTH, "STRICT"),
            (BOTH, BOTH, "PERMISSIVE"),
        ):
            it.follow(*before)
            it.follow(*after, users("id"), mtls=mtls)
            assert it.new.view(CATALOG) is None
            assert it.new.view(REVIEWS) is not None
            it.now += 3
            assert it.policies(CATALOG) == {"id"}
