"""Rollout by percentage: whether one refusal is in earnest, or only told of."""

from __future__ import annotations

import random


def by_lot(share: float, rng: random.Random) -> bool:
    """Decide whether something holds that holds for *share* of all; draws only where there is something to decide."""
    return share >= 1 or rng.random() < share
