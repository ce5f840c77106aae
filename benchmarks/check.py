"""One bound, and what a run found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One bound and how far the run is from it: it holds while *value* is at most *bound*."""

    name: str
    value: float
    bound: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the run keeps the bound."""
        return self.value <= self.bound

    def __str__(self) -> str:
        return f"{'ok  ' if self.holds else 'FAIL'} {self.name}: {self.value:.3g} {self.unit} (bound {self.bound:.3g})"
