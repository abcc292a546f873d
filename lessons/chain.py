"""The links of `configs/lessons/chain/`, told how often to fail and asked what they have counted."""

from dataclasses import dataclass

import aiohttp

from lessons.mesh import Mesh

LINKS = ("cart", "prices", "taxes", "rates")


@dataclass(frozen=True)
class Counted:
    """
    Attributes:
        asked: How often a link was asked.
        failed: How often it has failed.
    """

    asked: int
    failed: int


async def fail(mesh: Mesh, **rates: float) -> dict[str, Counted]:
    """Let links fail so often from now on, the others never; return what all have counted until now."""
    counted = {}
    async with aiohttp.ClientSession() as session:
        for link in LINKS:
            url = f"{mesh.app(link)}/fail/{rates.get(link, 0)}"
            async with session.put(url) as answer:
                counted[link] = Counted(**await answer.json())
    return counted
