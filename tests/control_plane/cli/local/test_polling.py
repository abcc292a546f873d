"""Wait for what nobody announces."""

from control_plane.cli.local.polling import until


async def test_until_asks_again_until_the_answer_is_yes() -> None:
    """It returns at the first yes and asks no more."""
    answers = [False, False, True]

    async def condition() -> bool:
        return answers.pop(0)

    await until(condition, every=0)

    assert answers == []
