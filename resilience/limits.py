"""The limits of one provider, composed: what an attempt takes on its way and gives back when it is over."""

from __future__ import annotations

from typing import Protocol, final

from resilience._core.words import Usage


class Reservation(Protocol):
    """Something taken for one attempt whose real size is known later."""

    def settle(self, amount: float, /) -> None:
        """Take the real amount in place of what was reserved."""

    def refund(self) -> None:
        """Give everything back: the attempt never left."""


class Place(Protocol):
    """A place among the attempts that run."""

    def leave(self) -> None:
        """Give it to the next."""


@final
class Turn:
    """What one attempt has taken. Giving it back a second time does nothing."""

    __slots__ = ("_money", "_place", "_quota")

    def __init__(
        self, place: Place | None = None, quota: Reservation | None = None, money: Reservation | None = None
    ) -> None:
        self._place = place
        self._quota = quota
        self._money = money

    def settle(self, usage: Usage) -> None:
        """Take what was really used in place of what was reserved."""
        if self._quota is not None and usage.tokens is not None:
            self._quota.settle(usage.tokens)
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
        place, self._place = self._place, None
        self._quota = self._money = None
        if place is not None:
            place.leave()


@final
class Limits:
    """The limits of one provider."""

    __slots__ = ("quick",)

    quick: bool


NO_TURN = Turn()
"""The turn of those whose provider has no limits."""
