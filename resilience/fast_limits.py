"""
How the fast path admits an attempt where there are limits: no lock, and nothing looked up twice.

One event loop has the provider to itself and nobody waits, so the places in use are the entries of its lane. These are
closures, because looking up what they need on an object would take longer than what they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from resilience._core.bucket import Bucket
from resilience._core.states import Period
from resilience.lane import Lane
from resilience.policies.bulkhead import Bulkhead

Admit: TypeAlias = Callable[[Lane, float], Period | None]
"""Admits one attempt that asks for nothing special by its entry in its only lane, at a moment; None: look closer."""


def admission(bulkhead: Bulkhead | None, bucket: Bucket | None) -> Admit:
    """Return what admits by a place, by a bucket of requests, or by both."""
    if bulkhead is not None and bucket is not None:
        return _by_both(bulkhead, bucket)
    if bulkhead is not None:
        return _by_place(bulkhead)
    return _by_quota(bucket) if bucket is not None else lambda lane, _: lane.passage


def _by_place(bulkhead: Bulkhead) -> Admit:
    def admit(lane: Lane, _: float) -> Period | None:
        return lane.passage if bulkhead.granted + len(lane.live) - lane.entries < bulkhead.limit else None

    return admit


def _by_quota(bucket: Bucket) -> Admit:
    interval = bucket.interval

    def admit(lane: Lane, now: float) -> Period | None:
        tat = bucket.tat
        if tat < now:  # noqa: PLR1730 - max() costs as much as the rest
            tat = now
        tat += interval
        if tat - now > bucket.tolerance:
            return None
        bucket.tat = tat
        return lane.passage

    return admit


def _by_both(bulkhead: Bulkhead, bucket: Bucket) -> Admit:
    interval = bucket.interval

    def admit(lane: Lane, now: float) -> Period | None:
        if bulkhead.granted + len(lane.live) - lane.entries >= bulkhead.limit:
            return None
        tat = bucket.tat
        if tat < now:  # noqa: PLR1730 - max() costs as much as the rest
            tat = now
        tat += interval
        if tat - now > bucket.tolerance:
            return None
        bucket.tat = tat
        return lane.passage

    return admit
