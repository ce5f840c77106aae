"""What is allowed in settings, and yet is hardly what somebody wanted: values that never have an effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resilience.settings import ProviderSettings, Settings

_SWITCHED = ("retry", "breaker", "gate", "budget")
_MODED = ("breaker", "rate_limit", "bulkhead", "throttle", "cost")


def doubts(settings: Settings) -> list[str]:
    """Return each doubt about *settings* as a sentence, without those that are repeated by every provider."""
    found = list(_about("defaults", settings.defaults, settings.defaults))
    general = {text.removeprefix("defaults") for text in found}
    for name, own in settings.providers.items():
        at = f"providers.{name}"
        found += [text for text in _about(at, own, settings.for_provider(name)) if text.removeprefix(at) not in general]
    if not settings.enabled and (settings.providers or settings.defaults.model_fields_set):
        found.append("enabled = false: every call is a plain await, whatever else is written")
    return found + list(_idle_experiments(settings))


def _about(at: str, own: ProviderSettings, whole: ProviderSettings) -> Iterator[str]:
    if not own.enabled and own.model_fields_set - {"enabled"}:
        yield f"{at}.enabled = false: nothing else in {at} has an effect"
    for name in _SWITCHED:
        yield from _switched_off(f"{at}.{name}", getattr(own, name), getattr(whole, name), "enabled", False)
    for name in _MODED:
        yield from _switched_off(f"{at}.{name}", getattr(own, name), getattr(whole, name), "mode", "disabled")
    yield from _out_of_reach(at, whole)


def _switched_off(at: str, own: Any, whole: Any, switch: str, off: object) -> Iterator[str]:
    """Find what is written in a table that is switched off."""
    if own is None or getattr(whole, switch) != off:
        return
    idle = sorted(own.model_fields_set - {"enabled", "mode"})
    if idle:
        text = str(off).lower()
        yield f"{at}.{', '.join(idle)}: without effect, because {at}.{switch} = {text}"


def _out_of_reach(at: str, whole: ProviderSettings) -> Iterator[str]:
    """Find times that nothing ever lasts."""
    attempt, total = whole.timeout.attempt, whole.timeout.total
    if attempt is not None and total is not None and attempt > total:
        yield f"{at}.timeout.attempt = {attempt:g}: no attempt lasts that long, because timeout.total = {total:g}"
    if whole.gate.enabled and total is not None and whole.gate.max_wait > total:
        wait = whole.gate.max_wait
        yield f"{at}.gate.max_wait = {wait:g}: no call waits that long, because timeout.total = {total:g}"
    slow = whole.breaker.slow_after
    if whole.breaker.enabled and slow is not None and attempt is not None and slow >= attempt:
        yield f"{at}.breaker.slow_after = {slow:g}: nothing is ever slow, because timeout.attempt = {attempt:g}"


def _idle_experiments(settings: Settings) -> Iterator[str]:
    for name, experiment in settings.experiments.items():
        if not experiment.share:
            yield f"experiments.{name}.share = 0: no call is in it"
