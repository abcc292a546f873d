"""A configuration that leads to itself: requests go in a circle, and are refused."""

import asyncio
from pathlib import Path

import pytest

from tests.conformance.sidecar import sidecar_before
from tests.helpers.client import get
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration


async def test_an_app_port_that_is_the_sidecars_own(tmp_path: Path) -> None:
    """The caller is told, and no connection goes on being made."""
    port = free_port()
    sidecar, port = sidecar_before(tmp_path, port, port=port)
    await asyncio.to_thread(sidecar.start)
    try:
        response = await get(port)
        assert response.status == 508
        assert response.header("x-mesh-refusal") == "loop"
        assert b"circle" in response.body
        [cluster] = await asyncio.to_thread(sidecar.get, "/clusters")
        assert cluster["endpoints"][0]["connections"] == 0
    finally:
        await asyncio.to_thread(sidecar.__exit__)
