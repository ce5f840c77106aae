"""Settings that are fine one by one and make no sense together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from resilience.settings import (
    BreakerSettings,
    BudgetSettings,
    BulkheadSettings,
    GateSettings,
    HealthSettings,
    HedgeSettings,
    MetricsSettings,
    OperationSettings,
    ProviderSettings,
    RetrySettings,
    Settings,
    TimeoutSettings,
)

Refusal = Callable[..., str]

MILLISECONDS = "; durations are in seconds, and milliseconds are written 500ms"
PROBE = "a probe would be given up while it may still be answered"
RATE = "the window would never hold enough calls for a rate"
GATE = "the gate is never closed for longer than hint_cap"
CUT = "every back-off would be cut"
GROWTH = "open times that grow would be longer than their end from the start"
CONTRADICTIONS: list[tuple[Callable[[], object], str]] = [
    (
        lambda: TimeoutSettings(attempt=30, total=20),
        (
            "TimeoutSettings refused: attempt = 30 (in code): must not be more than total = 20 (in code): one attempt "
            "cannot outlast the whole call"
        ),
    ),
    (
        lambda: HealthSettings(timeout=3, interval=2),
        (
            "HealthSettings refused: timeout = 3 (in code): must not be more than interval = 2 (in code): a check "
            "would still run when the next one is due"
        ),
    ),
    (
        lambda: Settings(metrics=MetricsSettings(path="/health/live")),
        (
            "Settings refused: metrics.path = '/health/live' (in code): does not go with health.path = '/health' "
            "(default): one of them would hide the other"
        ),
    ),
    (
        lambda: Settings(health=HealthSettings(path="/metrics/")),
        (
            "Settings refused: health.path = '/metrics/' (in code): does not go with metrics.path = '/metrics' "
            "(default): one of them would hide the other"
        ),
    ),
    (
        lambda: RetrySettings(base_delay=2, max_delay=1),
        f"RetrySettings refused: base_delay = 2 (in code): must not be more than max_delay = 1 (in code): {CUT}",
    ),
    (
        lambda: BreakerSettings(minimum_calls=20, window_calls=10),
        (
            "BreakerSettings refused: minimum_calls = 20 (in code): must not be more than window_calls = 10 (in code): "
            f"{RATE}"
        ),
    ),
    (
        lambda: BreakerSettings(slow_after=40, window=30),
        (
            "BreakerSettings refused: slow_after = 40 (in code): must not be more than window = 30 (in code): slow "
            "calls would count when the window has moved on"
        ),
    ),
    (
        lambda: BreakerSettings(timeout=60, growth=2, max_timeout=30),
        f"BreakerSettings refused: timeout = 60 (in code): must not be more than max_timeout = 30 (in code): {GROWTH}",
    ),
    (
        lambda: GateSettings(max_wait=10, hint_cap=5),
        f"GateSettings refused: max_wait = 10 (in code): must not be more than hint_cap = 5 (in code): {GATE}",
    ),
    (
        lambda: GateSettings(base_delay=10, hint_cap=5),
        f"GateSettings refused: base_delay = 10 (in code): must not be more than hint_cap = 5 (in code): {GATE}",
    ),
    (
        lambda: BulkheadSettings(min_limit=10, max_limit=5),
        (
            "BulkheadSettings refused: min_limit = 10 (in code): must not be more than max_limit = 5 (in code): an "
            "adaptive limit would have no room"
        ),
    ),
    (
        lambda: HedgeSettings(min_delay=2, max_delay=1),
        (
            "HedgeSettings refused: min_delay = 2 (in code): must not be more than max_delay = 1 (in code): no delay "
            "would be allowed"
        ),
    ),
    (
        lambda: OperationSettings(hedge=HedgeSettings(enabled=True), idempotent=False),
        (
            "OperationSettings refused: hedge.enabled = True (in code): contradicts idempotent = False (in code): a "
            "second attempt beside the first is only harmless where repeating is"
        ),
    ),
    (
        lambda: ProviderSettings(hedge=HedgeSettings(enabled=True), retry=RetrySettings(enabled=True)),
        (
            "ProviderSettings refused: hedge.enabled = True (in code): contradicts retry.enabled = True (in code): a "
            "hedged call is not retried; leave retry.enabled out"
        ),
    ),
    (
        lambda: ProviderSettings(breaker=BreakerSettings(slow_after=10), timeout=TimeoutSettings(attempt=10)),
        (
            "ProviderSettings refused: breaker.slow_after = 10.0 (in code): must be less than timeout.attempt = 10.0 "
            "(in code): attempts would be cut before they count as slow"
        ),
    ),
    (
        lambda: ProviderSettings(breaker=BreakerSettings(probe_lease=9), timeout=TimeoutSettings(attempt=10)),
        (
            "ProviderSettings refused: timeout.attempt = 10.0 (in code): must not be more than breaker.probe_lease = "
            f"9.0 (in code): {PROBE}"
        ),
    ),
    (
        lambda: Settings(providers={"s3": ProviderSettings(retry=RetrySettings(base_delay=500))}),
        (
            "Settings refused: providers.s3.retry.base_delay = 500.0 (in code): must not be more than "
            f"providers.s3.retry.max_delay = 60.0 (default): {CUT}{MILLISECONDS}"
        ),
    ),
    (
        lambda: Settings(defaults=ProviderSettings(breaker=BreakerSettings(timeout=900, growth=2))),
        (
            "Settings refused: defaults.breaker.timeout = 900.0 (in code): must not be more than "
            f"defaults.breaker.max_timeout = 600.0 (default): {GROWTH}"
        ),
    ),
    (
        lambda: Settings(
            defaults=ProviderSettings(breaker=BreakerSettings(max_timeout=50, growth=2)),
            providers={"s3": ProviderSettings(breaker=BreakerSettings(timeout=70))},
        ),
        (
            "Settings refused: providers.s3.breaker.timeout = 70.0 (in code): must not be more than "
            f"providers.s3.breaker.max_timeout = 50.0 (in code): {GROWTH}"
        ),
    ),
    *[
        (
            partial(BreakerSettings, minimum_calls=2, window_calls=1, **{rate: None}),
            (
                "BreakerSettings refused: minimum_calls = 2 (in code): must not be more than window_calls = 1 "
                f"(in code): {RATE}"
            ),
        )
        for rate in ("failure_rate", "slow_rate")
    ],
    (
        lambda: Settings(
            defaults=ProviderSettings(operations={"put": OperationSettings(retry=RetrySettings(base_delay=500))})
        ),
        (
            "Settings refused: defaults.operations.put.retry.base_delay = 500.0 (in code): must not be more than "
            f"defaults.operations.put.retry.max_delay = 60.0 (default): {CUT}{MILLISECONDS}"
        ),
    ),
]


@pytest.mark.parametrize("make, line", CONTRADICTIONS)
def test_contradiction(refusal: Refusal, make: Callable[[], object], line: str) -> None:
    """Settings that are fine one by one and make no sense together are refused, with both of them."""
    assert refusal(make) == line


def test_contradiction_between_sources(refusal: Refusal) -> None:
    """Each side of a contradiction is named with its own origin."""
    text = refusal({"HTTP_TIMEOUT_SEC": "60"}, defaults={"timeout": {"total": 30}})
    assert text == (
        "settings refused: defaults.timeout.attempt = '60' (environment variable HTTP_TIMEOUT_SEC): must not be more "
        "than defaults.timeout.total = 30 (in code): one attempt cannot outlast the whole call; HTTP_TIMEOUT_SEC is in "
        "seconds"
    )
    text = refusal({"RETRY_MAX_DELAY": "2"}, providers={"s3": {"retry": {"base_delay": 3}}})
    assert text == (
        "settings refused: providers.s3.retry.base_delay = 3 (in code): must not be more than "
        f"providers.s3.retry.max_delay = '2' (environment variable RETRY_MAX_DELAY): {CUT}{MILLISECONDS}"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeoutSettings(attempt=300),
        lambda: TimeoutSettings(total=10),
        lambda: TimeoutSettings(attempt=10, total=10),
        lambda: TimeoutSettings(attempt=None, total=10),
        lambda: TimeoutSettings(attempt=10, total=None),
        lambda: RetrySettings(base_delay=1, max_delay=1),
        lambda: Settings(defaults=ProviderSettings(retry=RetrySettings(max_delay=0.5))),
        lambda: BreakerSettings(timeout=900, max_timeout=800),
        lambda: Settings(defaults=ProviderSettings(breaker=BreakerSettings(timeout=900))),
        lambda: BreakerSettings(window_calls=10, minimum_calls=20, failure_rate=None, slow_rate=None),
        lambda: BreakerSettings(slow_after=40, window=30, slow_rate=None),
        lambda: Settings(defaults=ProviderSettings(breaker=BreakerSettings(window_calls=10))),
        lambda: Settings(defaults=ProviderSettings(breaker=BreakerSettings(timeout=60, growth=1))),
        lambda: BreakerSettings(slow_after=40, window=30, window_calls=100),
        lambda: ProviderSettings(
            breaker=BreakerSettings(slow_after=20, slow_rate=None), timeout=TimeoutSettings(attempt=10)
        ),
        lambda: ProviderSettings(breaker=BreakerSettings(probe_lease=10), timeout=TimeoutSettings(attempt=10)),
        lambda: GateSettings(max_wait=0, hint_cap=0, base_delay=0),
        lambda: BudgetSettings(ratio=0, floor_per_second=0, floor_burst=0),
        lambda: BreakerSettings(enabled=False, mode="shadow"),
        lambda: Settings(
            defaults=ProviderSettings(timeout=TimeoutSettings(attempt=60)),
            providers={"s3": ProviderSettings(timeout=TimeoutSettings(total=20))},
        ),
        lambda: Settings(
            defaults=ProviderSettings(breaker=BreakerSettings(minimum_calls=5)),
            providers={"s3": ProviderSettings(breaker=BreakerSettings(window_calls=10))},
        ),
    ],
)
def test_no_contradiction(make: Callable[[], object]) -> None:
    """What makes sense, or gives way to what was written, is accepted."""
    make()
