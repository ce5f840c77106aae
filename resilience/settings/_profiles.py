"""
Kinds of services, and the settings to start from for each.

Every number stands beside its reason. What a profile leaves out is as for any provider. Values that bound one another
are written together, so that a profile makes sense over whatever the defaults say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias, final, get_args

from resilience.settings._checks import Path
from resilience.settings._models import ProviderSettings
from resilience.settings._origins import is_there, look_up
from resilience.settings._types import FrozenDict, ProfileName

Rows: TypeAlias = Mapping[str, tuple[Any, str]]

PROFILES: Final[tuple[ProfileName, ...]] = get_args(ProfileName)


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """
    Settings to start from, for one kind of service.

    Args:
        name: What `ProviderSettings.profile` calls it.
        purpose: The services that it is meant for.
        settings: What it says; the rest is as for any provider.
        reasons: Why each of these values is what it is, by its key.
    """

    name: ProfileName
    purpose: str
    settings: ProviderSettings
    reasons: Mapping[str, str]


def profiles() -> tuple[Profile, ...]:
    """Return every profile."""
    return tuple(profile(name) for name in PROFILES)


@cache
def profile(name: ProfileName) -> Profile:
    """Return the profile *name*."""
    purpose, rows = _PROFILES[name]
    tree: dict[str, Any] = {}
    for key, (value, _) in rows.items():
        *above, last = key.split(".")
        table = tree
        for part in above:
            table = table.setdefault(part, {})
        table[last] = value
    return Profile(name, purpose, ProviderSettings(**tree), FrozenDict({key: why for key, (_, why) in rows.items()}))


def from_profile(name: object, path: Path) -> object:
    """Return what the profile *name* says at *path*; None if it says nothing, or there is none."""
    known = next((known for known in PROFILES if known == str(name).strip().lower()), None)
    table = profile(known).settings if known else None
    return look_up(table, path) if is_there(table, path) else None


_SIZE = "how long it takes depends on the size, so slowness is no sign of trouble"

_LLM: Rows = {
    "timeout.attempt": (300.0, "long answers take minutes; the vendors' own clients wait for 600 s"),
    "timeout.total": (600.0, "one full attempt, and room for another"),
    "retry.base_delay": (0.5, "as in the vendors' clients, whose own retries are to be off"),
    "retry.max_delay": (8.0, "as there; longer pauses are the provider's to ask for"),
    "breaker.slow_rate": (None, "how long it takes depends on the length of the answer"),
    "breaker.window": (120.0, "calls are few and long: in 30 s too few end for a rate"),
    "breaker.minimum_calls": (10, "likewise"),
    "budget.window": (60.0, "likewise: the share of retries is taken from more than a handful of calls"),
    "bulkhead.adaptive": ("aimd", "follows 429, 529 and timeouts; a limit by latency would starve on long answers"),
    "bulkhead.initial_limit": (20, "a small account's worth; it grows while the provider accepts"),
    "bulkhead.max_limit": (200, "beyond that the account's rate limit is what holds"),
    "bulkhead.max_wait": (30.0, "a place is held for a whole answer, so it takes that long until one is free"),
    "hedge.enabled": (False, "a second attempt is paid for in full"),
    "stream.connect": (10.0, "accepting a request is quick, however long the answer is"),
    "stream.first_item": (120.0, "long prompts, and models that think first"),
    "stream.idle": (60.0, "tokens come many a second; a minute of silence is a dead connection"),
}

_OBJECT_STORAGE: Rows = {
    "timeout.attempt": (60.0, "100 MB at 2 MB/s, with some to spare"),
    "timeout.total": (300.0, "five such attempts"),
    "retry.max_attempts": (5, "whole objects are read and written idempotently, so trying again is harmless"),
    "retry.base_delay": (0.2, "most errors are of one of many front ends: the next request meets another"),
    "retry.max_delay": (20.0, "'slow down' passes once the store has split a busy prefix, in seconds"),
    "breaker.failure_threshold": (10, "a few failures in a row are one bad front end, not the store"),
    "breaker.slow_rate": (None, _SIZE),
    "stream.idle": (20.0, "a body comes steadily or not at all"),
}

_UPLOAD: Rows = {
    "timeout.attempt": (600.0, "600 MB at 1 MB/s; parts of a resumable upload are far below it"),
    "timeout.total": (3600.0, "an hour for one call with all its attempts"),
    "retry.max_attempts": (5, "a long transfer meets more cuts than a short one"),
    "retry.base_delay": (
        1.0,
        "right after a cut servers still hold the old connection, and a stale offset",
    ),
    "retry.max_delay": (60.0, "nobody waits at a screen for it"),
    "breaker.slow_rate": (None, _SIZE),
    "bulkhead.max_concurrent": (4, "uploads share one line; more at once only make each run into its timeout"),
    "bulkhead.max_wait": (60.0, "a place is held for a whole transfer"),
    "hedge.enabled": (False, "the same bytes twice over the same line help nobody"),
    "operations.upload.idempotent": (False, "sent twice it may be stored twice, so only what never left is repeated"),
    "operations.resume.idempotent": (True, "the server is asked first what it has, so nothing is stored twice"),
}

_WEBHOOK: Rows = {
    "timeout.attempt": (15.0, "what receivers are told to answer within (Standard Webhooks)"),
    "timeout.total": (60.0, "two attempts and the pause; what fails then goes back to the queue"),
    "retry.max_attempts": (2, "at once and after 5 s; from then on (5 min, 30 min, ... 10 h) a queue brings it again"),
    "retry.base_delay": (5.0, "the first step of that schedule"),
    "retry.max_delay": (10.0, "no later step belongs into a call"),
    "retry.jitter": ("equal", "keeps a floor: a receiver that restarts needs seconds, not luck"),
    "breaker.timeout": (300.0, "the second step of the schedule: until then nothing new is worth trying"),
    "breaker.growth": (2.0, "a receiver that stays down is down for hours"),
    "breaker.max_timeout": (3600.0, "but once an hour it gets its chance"),
    "gate.max_wait": (0.0, "the queue brings it again; a worker that waits is missing to all other receivers"),
    "bulkhead.max_concurrent": (10, "one slow receiver must not take all workers"),
    "bulkhead.max_wait": (1.0, "likewise"),
}

_DATABASE: Rows = {
    "timeout.attempt": (5.0, "a statement that runs longer holds locks and a connection that others wait for"),
    "timeout.total": (10.0, "somebody waits for the page"),
    "retry.base_delay": (0.05, "deadlocks and dropped connections are over at once"),
    "retry.max_delay": (1.0, "what is not over in a second is a failover, and that is the breaker's business"),
    "breaker.timeout": (10.0, "a failover takes half a minute; a probe is cheap"),
    "breaker.window": (10.0, "statements are many and short, so evidence is quick"),
    "bulkhead.max_concurrent": (10, "as many as a connection pool has (asyncpg's default): more only wait inside it"),
    "bulkhead.max_queue": (100, "ten for each connection"),
    "bulkhead.max_wait": (2.0, "the rest of the 10 s is for the statement"),
    "hedge.enabled": (False, "the second statement would run into the same locks"),
}

_INTERNAL_RPC: Rows = {
    "timeout.attempt": (1.0, "ten times what a healthy neighbour takes at its worst"),
    "timeout.total": (3.0, "those who call us have deadlines too"),
    "retry.max_attempts": (2, "retries multiply from layer to layer: three each over five layers are 243 calls"),
    "retry.base_delay": (0.025, "another instance answers at once (Envoy's default)"),
    "retry.max_delay": (0.25, "ten times that, likewise"),
    "budget.ratio": (0.1, "half the usual: every layer adds its own (gRPC stops near 9 %)"),
    "breaker.timeout": (5.0, "instances are replaced in seconds"),
    "breaker.window": (10.0, "calls are many, so evidence is quick"),
    "gate.max_wait": (0.5, "a longer wait does not fit into 3 s"),
    "gate.hint_cap": (10.0, "one of us that asks for more than the time of its own restart is mistaken"),
    "gate.base_delay": (0.1, "as long as a few calls"),
    "throttle.enabled": (True, "those who refuse are our own: sending less helps them up"),
    "bulkhead.max_wait": (0.5, "as for the gate"),
}

_PROFILES: Mapping[ProfileName, tuple[str, Rows]] = {
    "llm": ("Language models behind an API", _LLM),
    "object_storage": ("Stores of whole objects, such as S3, GCS and Azure Blob", _OBJECT_STORAGE),
    "upload": ("Sending large files, whole (operation upload) or resumable (operation resume)", _UPLOAD),
    "webhook": ("Deliveries to other people's servers, one provider or endpoint for each receiver", _WEBHOOK),
    "database": ("Databases and caches behind a connection pool", _DATABASE),
    "internal_rpc": ("Services of your own, in the same data centre", _INTERNAL_RPC),
}
