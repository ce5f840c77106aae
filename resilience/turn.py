"""What one attempt has taken of its provider's limits, and how it goes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from resilience._core.words import Usage
from resilience.policies.cost import Spending
from resilience.policies.rate_limit import Reservation


@final
class Turn:
    """What one attempt has taken. Giving it back a second time does nothing."""

    __slots__ = ("_money", "_parting", "_quota")

    def __init__(
        self,
        money: Spending | None = None,
        quota: Reservation | None = None,
        parting: Callable[[], None] | None = None,
    ) -> None:
        self._money = money
        self._quota = quota
        self._parting = parting

    def settle(self, usage: Usage) -> None:
        """Take what was really used in place of what was reserved."""
        if self._quota is not None and usage.tokens is not None:
            self._quota.settle(tokens=usage.tokens)
        if self._money is not None and usage.cost is not None:
            self._money.settle(usage.cost)

    def refund(self) -> None:
        """Give everything back: the attempt never left, or surely never arrived."""
        for reservation in (self._quota, self._money):
            if reservation is not None:
                reservation.refund()
        self.leave()

    def leave(self) -> None:
        """Give the place to the next; what was used stays used."""
        parting, self._parting = self._parting, None
        self._money = self._quota = None
        if parting is not None:
            parting()


NO_TURN: Final = Turn()
"""The turn of those whose provider has no limits."""
