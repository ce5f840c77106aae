"""
The line of those who wait for a rate limit: synchronous, and every method is called under the limit's lock.

Only the head sleeps for its turn. Leaving is free at any place, and the new head is told.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

from resilience import waiting
from resilience._core.bucket import Bucket, Buckets
from resilience._core.words import Priority, Reason
from resilience.policies._rate_limit import RateRefusal
from resilience.policies._waiter import Waiter

_SLACK: Final = 1e-6  # seconds; a wait that is longer than allowed by rounding alone is not
_GRACE: Final = 1.0  # seconds; a head of the line that is later than this may never come
_RANKS: Final = {Priority.CRITICAL: 0, Priority.DEFAULT: 1, Priority.SHEDDABLE: 2}


@final
class Place:
    """
    A place in the line.

    Args:
        requests: How many requests it stands there for.
        tokens: How many tokens.
        priority: How much it matters when the line is full.
        until: When it gives up.
    """

    __slots__ = ("due", "rank", "requests", "tokens", "until", "waiter")

    due: float  # when it should act; much later, its loop may be gone
    waiter: Waiter | None  # None: it was sent away

    def __init__(self, requests: float, tokens: float, priority: Priority, until: float) -> None:
        self.requests = requests
        self.tokens = tokens
        self.rank = _RANKS[priority]
        self.until = until
        self.due = until
        self.waiter = Waiter()

    def wake(self) -> bool:
        """Let it look again. Returns False if its event loop is gone."""
        return self.waiter is None or self.waiter.wake()


@final
class Line:
    """
    Who waits, in order, for room in *buckets*.

    Args:
        buckets: What they wait for.
        names: What each of them is called.
        most: So many may wait.
    """

    __slots__ = ("_buckets", "_labels", "_most", "_places", "_requests", "_tokens")

    def __init__(self, buckets: Buckets, names: dict[Bucket, str], most: int) -> None:
        self._set(buckets, names, most)
        self.clear()

    def _set(self, buckets: Buckets, names: dict[Bucket, str], most: int) -> None:
        self._buckets = buckets
        self._labels = {bucket: f"{bucket.allowance:g} {name}" for bucket, name in names.items()}
        self._most = most

    def adopt(self, buckets: Buckets, names: dict[Bucket, str], most: int, *, clamps: bool) -> None:
        """Wait for room in other *buckets* from now on, in the same order. Nobody is sent away for it."""
        self._set(buckets, names, most)
        if clamps:
            for place in self._places:
                place.requests = min(place.requests, buckets.most_requests)
                place.tokens = min(place.tokens, buckets.most_tokens)
            self._requests = sum(place.requests for place in self._places)
            self._tokens = sum(place.tokens for place in self._places)
        buckets.bar(bool(self._places))
        self.stir()

    def clear(self) -> None:
        """Forget everybody."""
        self._places: OrderedDict[Place, None] = OrderedDict()
        self._requests = 0.0  # what all of them stand there for
        self._tokens = 0.0
        self._buckets.bar(False)

    def __len__(self) -> int:
        return len(self._places)

    def try_take(self, now: float, requests: float, tokens: float) -> bool:
        """Take so much, unless there is no room or somebody was here first."""
        if self._places and next(iter(self._places)).due + _GRACE < now:
            self.stir()  # a loop can be closed with tasks that never got to leave the line
        return not self._places and not self._buckets.try_take(now, requests, tokens)

    def refusal(self, now: float, requests: float, tokens: float, reason: Reason = Reason.RATE_LIMITED) -> RateRefusal:
        """Say why there is no room for so much, behind those who wait already."""
        buckets = self._buckets
        if requests > buckets.most_requests:
            return _oversized(requests, "requests", buckets.most_requests)
        if tokens > buckets.most_tokens:
            return _oversized(tokens, "tokens", buckets.most_tokens)
        slowest, longest = buckets.all[0], -1.0
        for row, wanted in ((buckets.requests, self._requests + requests), (buckets.tokens, self._tokens + tokens)):
            for bucket in row:
                wait = bucket.queue(now, wanted)
                if wait > longest:
                    slowest, longest = bucket, wait
        return RateRefusal(reason, longest, self._labels[slowest], len(self._places))

    def enter(self, place: Place, now: float) -> RateRefusal | None:
        """Put *place* at the end. If the line is full, somebody less important has to go, or *place* itself."""
        if len(self._places) >= self._most and not self._make_room(place):
            return self.refusal(now, place.requests, place.tokens)
        if not self._places:
            self._buckets.bar(True)
        self._places[place] = None
        self._requests += place.requests
        self._tokens += place.tokens
        return None

    def advance(self, place: Place, now: float) -> RateRefusal | tuple[Waiter, float] | None:
        """Take at one's turn: None. Or give up at one's end, or say how to sleep, and how long at most."""
        if place.waiter is None:
            return self.refusal(now, place.requests, place.tokens, Reason.SHED)
        wait = left = place.until - now
        is_head = next(iter(self._places)) is place
        if is_head:
            wait = self._buckets.try_take(now, place.requests, place.tokens)
            if not wait:
                return None
        if left <= 0 or wait > left + _SLACK:
            self.leave(place)
            return self.refusal(now, place.requests, place.tokens)
        if is_head and waiting.skipping:  # what would be there after the wait is taken ahead of time
            self._buckets.try_take(now + wait, place.requests, place.tokens)
            return None
        place.waiter = Waiter()
        place.due = now + wait
        return place.waiter, wait

    def leave(self, place: Place) -> None:
        """Take *place* out, if it is still there, and let whoever is at the head now look."""
        if place in self._places:
            was_head = next(iter(self._places)) is place
            self._remove(place)
            if was_head:
                self.stir()

    def stir(self) -> None:
        """Let the head look again; pass over those whose loop is gone."""
        while self._places and not (head := next(iter(self._places))).wake():
            self._remove(head)

    def _remove(self, place: Place) -> None:
        del self._places[place]
        self._requests -= place.requests
        self._tokens -= place.tokens
        if not self._places:
            self.clear()

    def _make_room(self, place: Place) -> bool:
        """Send the youngest of the least important away, if it is less important than *place*."""
        # max() prefers the first of equals: the youngest, from behind.
        victim = max(reversed(self._places), key=lambda other: other.rank, default=place)
        if victim.rank <= place.rank:
            return False
        victim.wake()
        victim.waiter = None
        self.leave(victim)
        return True


def _oversized(wanted: float, what: str, most: float) -> RateRefusal:
    return RateRefusal(Reason.RATE_OVERSIZED, None, f"{wanted:g} {what} at once, but only {most:g} ever fit")
