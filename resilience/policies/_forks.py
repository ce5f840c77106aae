"""Policies in a forked child: as if nothing had happened, and with locks that no thread of the parent holds."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from typing import Any, Protocol
from weakref import WeakSet


class Survivor(Protocol):
    """What a forked child has a copy of."""

    lock: AbstractContextManager[Any]

    def start_anew(self) -> None:
        """Forget everything without telling anybody."""


_survivors: WeakSet[Survivor] = WeakSet()


def survives(policy: Survivor) -> None:
    """Let *policy* start anew in forked children, as long as it lives."""
    _survivors.add(policy)


def start_anew() -> None:
    """Let every policy start anew."""
    for policy in list(_survivors):
        policy.lock = threading.RLock()  # the parent's may have been held by a thread that does not exist here
        policy.start_anew()


# Whoever shares a lock with policies imports them, so its own hook comes after this one and can share it again.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=start_anew)
