"""How the policies wait: for real, or, in a user's test suite, not at all."""

from __future__ import annotations

import anyio

skipping: int = 0
"""How many ask at present for waits to be skipped: see `resilience.testing.no_waits`."""


async def wait(seconds: float) -> float:
    """
    Sleep for *seconds*.

    Returns:
        How many of them were skipped. No clock shows them, so whoever counts them against a deadline brings it
        forward by as many: then what is decided stays the same.
    """
    await anyio.sleep(0 if skipping else seconds)
    return seconds if skipping else 0.0
