"""The processes that tests start run the build that the tests themselves import."""

from pathlib import Path

import psutil
import pytest

from meshproxy import exchange
from tests.helpers.compiled import COMPILED
from tests.helpers.pair import Pair
from tests.helpers.ports import free_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not COMPILED, reason="nothing is compiled here"),
]


def test_sidecars_and_their_workers_run_what_is_compiled(tmp_path: Path) -> None:
    """Otherwise everything that this folder says of the compiled hot path would be said of its sources."""
    with Pair(tmp_path, free_port(), settings={"workers": 2}) as pair:
        for sidecar in (pair.a, pair.b):
            family = psutil.Process(sidecar.process.pid).children()
            assert len(family) == 2
            for one in family:
                assert exchange.__file__ in Path(f"/proc/{one.pid}/maps").read_text()
